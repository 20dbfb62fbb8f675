// Package image packs files into a container image archive that both `ctr images import` (OCI layout) and
// `docker load` (manifest.json) read. The same input makes the same bytes. It runs nothing.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"
)

// Image is what goes into an archive.
type Image struct {
	// Names are full references; the same content is stored once.
	Names      []string
	Entrypoint []string
	// User is "uid:gid"; empty is root.
	User string
	// Files are path in the image → content.
	Files map[string]File
	// Compress trades packing time for size.
	Compress bool
}

// File is one file of an image.
type File struct {
	Content []byte
	Mode    int64
}

// Archive writes the image and returns the size of its layer as stored.
func (i Image) Archive(to io.Writer) (int, error) {
	plain, err := i.layer()
	if err != nil {
		return 0, err
	}
	stored, mediaType := plain, "application/vnd.oci.image.layer.v1.tar"
	if i.Compress {
		if stored, err = squeeze(plain); err != nil {
			return 0, err
		}
		mediaType += "+gzip"
	}
	config := map[string]any{
		"architecture": "amd64",
		"os":           "linux",
		"created":      time.Unix(0, 0).UTC().Format(time.RFC3339),
		"config": map[string]any{
			"Entrypoint": i.Entrypoint,
			"Env":        []string{"PATH=/usr/local/bin:/usr/bin:/bin:/"},
			"User":       i.User,
			"WorkingDir": "/",
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{digest(plain)}},
		"history": []map[string]any{{"created": time.Unix(0, 0).UTC().Format(time.RFC3339), "created_by": "bed image"}},
	}
	configBytes, err := json.Marshal(config)
	if err != nil {
		return 0, err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        descriptor("application/vnd.oci.image.config.v1+json", configBytes),
		"layers":        []any{descriptor(mediaType, stored)},
	})
	if err != nil {
		return 0, err
	}
	var manifests []any
	for _, name := range i.Names {
		entry := descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
		entry["platform"] = map[string]string{"architecture": "amd64", "os": "linux"}
		entry["annotations"] = map[string]string{
			"io.containerd.image.name":          name,
			"org.opencontainers.image.ref.name": name[strings.LastIndexByte(name, ':')+1:],
		}
		manifests = append(manifests, entry)
	}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
	})
	if err != nil {
		return 0, err
	}
	docker, err := json.Marshal([]any{map[string]any{
		"Config": blob(configBytes), "RepoTags": i.Names, "Layers": []string{blob(stored)},
	}})
	if err != nil {
		return 0, err
	}
	archive := tar.NewWriter(to)
	for _, entry := range []struct {
		name    string
		content []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{"manifest.json", docker},
		{blob(manifest), manifest},
		{blob(configBytes), configBytes},
		{blob(stored), stored},
	} {
		if err := put(archive, entry.name, entry.content, 0o644); err != nil {
			return 0, err
		}
	}
	return len(stored), archive.Close()
}

// Write puts the archive into a file, whole or not at all.
func (i Image) Write(file string) (int, error) {
	out, err := os.Create(file + ".new")
	if err != nil {
		return 0, err
	}
	size, err := i.Archive(out)
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return 0, fmt.Errorf("image %s: %w", file, err)
	}
	return size, os.Rename(file+".new", file)
}

// Executable reads a program from disk as a file of an image.
func Executable(file string) (File, error) {
	content, err := os.ReadFile(file)
	return File{Content: content, Mode: 0o755}, err
}

func (i Image) layer() ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	dirs := map[string]int64{"etc": 0o755, "run": 0o755, "tmp": 0o1777, "var": 0o755}
	paths := make([]string, 0, len(i.Files))
	for name := range i.Files {
		name = strings.TrimPrefix(path.Clean("/"+name), "/")
		paths = append(paths, name)
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, there := dirs[dir]; !there {
				dirs[dir] = 0o755
			}
		}
	}
	names := make([]string, 0, len(dirs))
	for dir := range dirs {
		names = append(names, dir)
	}
	sort.Strings(names)
	for _, dir := range names {
		header := &tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: dirs[dir], ModTime: time.Unix(0, 0)}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
	}
	sort.Strings(paths)
	for _, name := range paths {
		file := i.Files["/"+name]
		if err := put(archive, name, file.Content, file.Mode); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

func put(archive *tar.Writer, name string, content []byte, mode int64) error {
	header := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

func squeeze(plain []byte) ([]byte, error) {
	var buffer bytes.Buffer
	writer, err := gzip.NewWriterLevel(&buffer, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := writer.Write(plain); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

func descriptor(mediaType string, content []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digest(content), "size": len(content)}
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func blob(content []byte) string {
	return "blobs/sha256/" + strings.TrimPrefix(digest(content), "sha256:")
}
