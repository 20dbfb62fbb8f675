package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"testing"
)

func packed(t *testing.T, compress bool) map[string][]byte {
	t.Helper()
	image := Image{
		Names: []string{"example.test/a:v1", "example.test/a:v2"}, Entrypoint: []string{"/usr/bin/a"}, User: "65532:65532",
		Files: map[string]File{"/usr/bin/a": {Content: []byte("program"), Mode: 0o755}}, Compress: compress,
	}
	var first, second bytes.Buffer
	if _, err := image.Archive(&first); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Archive(&second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same image made two different archives")
	}
	return unpack(t, &first)
}

func unpack(t *testing.T, from io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	archive := tar.NewReader(from)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnArchiveIsBothAnOCILayoutAndADockerArchive(t *testing.T) {
	files := packed(t, true)
	var index struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 2 || index.Manifests[1].Annotations["io.containerd.image.name"] != "example.test/a:v2" {
		t.Errorf("the index holds %+v", index)
	}
	var docker []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &docker); err != nil {
		t.Fatal(err)
	}
	if len(docker) != 1 || len(docker[0].RepoTags) != 2 || len(docker[0].Layers) != 1 {
		t.Fatalf("docker's manifest is %+v", docker)
	}
	var config struct {
		Config struct {
			User       string
			Entrypoint []string
		}
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(files[docker[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || config.Config.Entrypoint[0] != "/usr/bin/a" {
		t.Errorf("the configuration is %+v", config.Config)
	}
	squeezed, err := gzip.NewReader(bytes.NewReader(files[docker[0].Layers[0]]))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(squeezed)
	if err != nil {
		t.Fatal(err)
	}
	if digest(layer) != config.Rootfs.DiffIDs[0] {
		t.Error("the configuration does not name the layer by its uncompressed digest")
	}
	inside := unpack(t, bytes.NewReader(layer))
	if string(inside["usr/bin/a"]) != "program" {
		t.Errorf("the layer holds %v", inside)
	}
	if _, there := inside["tmp/"]; !there {
		t.Error("there is no /tmp")
	}
}

func TestAnUncompressedLayerIsStoredAsItIs(t *testing.T) {
	files := packed(t, false)
	for name, content := range files {
		if name != "manifest.json" && name != "index.json" && name != "oci-layout" && name != blob(content) {
			t.Errorf("%s is not named by its digest", name)
		}
	}
}
