package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"heddle.test/cluster/internal/suite"
)

func conformance(args []string) error {
	set := flag.NewFlagSet("conformance", flag.ExitOnError)
	flags := addBedFlags(set)
	profiles := set.String("profiles", "", "profiles to run, comma separated (default: those claimed)")
	only := set.String("run", "", "the one test to run")
	bare := set.Bool("bare", false, "install nothing: the run must end in failures")
	extra := set.Bool("extra", false, "also run the tests that the suite lacks (retry budgets); they count for no profile")
	asIs := set.Bool("no-install", false, "test what is installed on the bed already")
	keep := set.Bool("keep", false, "leave a bed that this command brought up")
	out := set.String("out", "", "folder for report.yaml and raw.log (default: target/conformance)")
	_ = set.Parse(args)
	source, err := sources()
	if err != nil {
		return err
	}
	root := filepath.Join(source, "..", "..")
	if *out == "" {
		*out = filepath.Join(root, "target", "conformance")
	}
	if *out, err = filepath.Abs(*out); err != nil {
		return err
	}
	b, fresh, err := upOrBringUp(flags)
	if err != nil {
		return err
	}
	if fresh && !*keep {
		defer func() {
			if err := b.TakeDown(); err != nil {
				fmt.Fprintln(os.Stderr, "bed:", err)
			}
		}()
	}
	if err := installCRDs(b); err != nil {
		return err
	}
	if !*bare && !*asIs {
		installed, err := install(b, root)
		if err != nil {
			return err
		}
		if !installed {
			say("deploy/ holds nothing to install: running with no implementation")
			*bare = true
		}
	}
	run := suite.Run{Bed: b, Out: *out, Only: *only, Extra: *extra, Bare: *bare, Implementation: implementation(root)}
	if *profiles != "" {
		run.Profiles = strings.Split(*profiles, ",")
	}
	began := time.Now()
	say("running the suite; its log is %s", filepath.Join(*out, "raw.log"))
	outcome, err := run.Do()
	if err != nil {
		return err
	}
	fmt.Println()
	outcome.Table(os.Stdout)
	fmt.Printf("took %s; report: %s\n", time.Since(began).Round(time.Second), filepath.Join(*out, "report.yaml"))
	if !outcome.Conformant() {
		return fmt.Errorf("not everything that is claimed passed")
	}
	return nil
}

// implementation takes the report's names from the workspace's own metadata.
func implementation(root string) suite.Implementation {
	text, _ := os.ReadFile(filepath.Join(root, "Cargo.toml"))
	value := func(key, otherwise string) string {
		for _, line := range strings.Split(string(text), "\n") {
			if name, rest, ok := strings.Cut(line, "="); ok && strings.TrimSpace(name) == key {
				if quoted := strings.Split(rest, `"`); len(quoted) >= 2 {
					return quoted[1]
				}
			}
		}
		return otherwise
	}
	home := value("repository", "https://heddle.dev")
	return suite.Implementation{Organization: "heddle", Project: "heddle", URL: home, Version: value("version", "0.0.0"), Contact: home}
}
