package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"heddle.test/cluster/internal/image"
)

func packImage(args []string) error {
	set := flag.NewFlagSet("image", flag.ExitOnError)
	out := set.String("out", "", "archive to write")
	reference := set.String("name", "", "full image name with its tag")
	user := set.String("user", "", "uid:gid; empty is root")
	_ = set.Parse(args)
	if *out == "" || *reference == "" || set.NArg() != 1 {
		return fmt.Errorf("bed image --out FILE --name REF [--user UID:GID] PROGRAM")
	}
	program, err := image.Executable(set.Arg(0))
	if err != nil {
		return err
	}
	path := "/" + filepath.Base(set.Arg(0))
	packed := image.Image{
		Names: []string{*reference}, Entrypoint: []string{path}, User: *user, Compress: true,
		Files: map[string]image.File{path: program},
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return err
	}
	size, err := packed.Write(*out)
	if err != nil {
		return err
	}
	mib := func(bytes int) float64 { return float64(bytes) / (1 << 20) }
	fmt.Printf("%-48s %6.1f MiB stored, %6.1f MiB on disk  %s\n", *reference, mib(size), mib(len(program.Content)), *out)
	return nil
}
