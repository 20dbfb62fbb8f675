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
	var with []string
	set.Func("with", "program of this machine to carry along with its libraries; may be given again", func(program string) error {
		with = append(with, program)
		return nil
	})
	_ = set.Parse(args)
	if *out == "" || *reference == "" || set.NArg() != 1 {
		return fmt.Errorf("bed image --out FILE --name REF [--user UID:GID] [--with PROGRAM]… PROGRAM")
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
	for _, other := range with {
		if err := packed.Carry(other); err != nil {
			return err
		}
	}
	onDisk := 0
	for _, file := range packed.Files {
		onDisk += len(file.Content)
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return err
	}
	size, err := packed.Write(*out)
	if err != nil {
		return err
	}
	mib := func(bytes int) float64 { return float64(bytes) / (1 << 20) }
	fmt.Printf("%-48s %6.1f MiB stored, %6.1f MiB on disk  %s\n", *reference, mib(size), mib(onDisk), *out)
	return nil
}
