// Package suite runs the official Gateway API conformance suite on a bed and says what came of it. This file
// is pure: catalogue, claims and raw log in; outcome and table out. run.go does the running.
package suite

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// Catalogue is what the suite holds.
type Catalogue struct {
	Profiles []Profile
	Tests    []Test
}

// Profile is a named set of features.
type Profile struct {
	Name           string
	Core, Extended []string
}

// Test needs all of its features.
type Test struct {
	Name        string
	Features    []string
	Provisional bool
	// Extra marks a test that the official suite lacks; it is run apart and counts for no profile.
	Extra bool
}

// Result of one test.
type Result string

// What a test can come to. A test without a line in the log did not run.
const (
	Passed  Result = "PASS"
	Failed  Result = "FAIL"
	Skipped Result = "SKIP"
	NotRun  Result = "NOT RUN"
)

// Claims are what the run is held to.
type Claims struct {
	// Profiles to report; their core features are claimed with them.
	Profiles []string
	// Features that the implementation says it has.
	Features []string
	// Only, if set, is the one test of the run.
	Only string
	// Extra says that the tests which the official suite lacks are run as well.
	Extra bool
}

// Score counts the claimed tests of one kind.
type Score struct{ Passed, Total int }

// Line is one profile's row; the tests outside profiles have one too.
type Line struct {
	Name           string
	Core, Extended Score
}

// Outcome is what a run came to.
type Outcome struct {
	Lines     []Line
	Outside   Score
	Extra     Score
	Failed    []string
	Skipped   []string
	Missing   []string
	Unclaimed int
}

var resultLine = regexp.MustCompile(`--- (PASS|FAIL|SKIP): Test(?:Conformance|Extra)/([^/\s]+) \(`)

// Read finds each test's result in the raw log of a run.
func Read(log string) map[string]Result {
	results := map[string]Result{}
	for _, match := range resultLine.FindAllStringSubmatch(log, -1) {
		results[match[2]] = Result(match[1])
	}
	return results
}

// Judge holds the results against the claims.
func Judge(catalogue Catalogue, claims Claims, results map[string]Result) Outcome {
	claimed := map[string]bool{}
	for _, feature := range claims.Features {
		claimed[feature] = true
	}
	var profiles []Profile
	for _, profile := range catalogue.Profiles {
		if slices.Contains(claims.Profiles, profile.Name) {
			profiles = append(profiles, profile)
			for _, feature := range profile.Core {
				claimed[feature] = true
			}
		}
	}
	outcome := Outcome{Lines: make([]Line, len(profiles))}
	for i, profile := range profiles {
		outcome.Lines[i].Name = profile.Name
	}
	for _, test := range catalogue.Tests {
		if claims.Only != "" && test.Name != claims.Only {
			continue
		}
		if test.Extra && claims.Only == "" && !claims.Extra {
			continue
		}
		if claims.Only == "" && !all(test.Features, func(feature string) bool { return claimed[feature] }) {
			outcome.Unclaimed++
			continue
		}
		result, ran := results[test.Name]
		if !ran {
			result = NotRun
		}
		outcome.note(test, result, profiles)
	}
	sort.Strings(outcome.Failed)
	sort.Strings(outcome.Skipped)
	sort.Strings(outcome.Missing)
	return outcome
}

func (o *Outcome) note(test Test, result Result, profiles []Profile) {
	outside := !test.Extra
	if test.Extra {
		o.Extra.add(result)
		profiles = nil
	}
	for i, profile := range profiles {
		core := all(test.Features, func(feature string) bool { return slices.Contains(profile.Core, feature) })
		within := core || all(test.Features, func(feature string) bool {
			return slices.Contains(profile.Core, feature) || slices.Contains(profile.Extended, feature)
		})
		if !within {
			continue
		}
		outside = false
		score := &o.Lines[i].Extended
		if core {
			score = &o.Lines[i].Core
		}
		score.add(result)
	}
	if outside {
		o.Outside.add(result)
	}
	switch result {
	case Failed:
		o.Failed = append(o.Failed, test.Name)
	case Skipped:
		o.Skipped = append(o.Skipped, test.Name)
	case NotRun:
		o.Missing = append(o.Missing, test.Name)
	}
}

func (s *Score) add(result Result) {
	s.Total++
	if result == Passed {
		s.Passed++
	}
}

// Conformant says that there was something to pass, and all of it passed.
func (o Outcome) Conformant() bool {
	total := o.Outside.Total + o.Extra.Total
	for _, line := range o.Lines {
		total += line.Core.Total + line.Extended.Total
	}
	return total > 0 && len(o.Failed)+len(o.Skipped)+len(o.Missing) == 0
}

// Table prints the outcome for a person.
func (o Outcome) Table(to io.Writer) {
	fmt.Fprintf(to, "%-18s %12s %12s\n", "profile", "core", "extended")
	for _, line := range o.Lines {
		fmt.Fprintf(to, "%-18s %12s %12s\n", line.Name, line.Core, line.Extended)
	}
	fmt.Fprintf(to, "%-18s %12s\n", "outside profiles", o.Outside)
	if o.Extra.Total > 0 {
		fmt.Fprintf(to, "%-18s %12s\n", "not in the suite", o.Extra)
	}
	for _, list := range []struct {
		title string
		names []string
	}{{"failed", o.Failed}, {"skipped", o.Skipped}, {"did not run", o.Missing}} {
		if len(list.names) > 0 {
			fmt.Fprintf(to, "%s (%d):\n  %s\n", list.title, len(list.names), strings.Join(list.names, "\n  "))
		}
	}
	fmt.Fprintf(to, "not claimed: %d tests\n", o.Unclaimed)
}

func (s Score) String() string {
	if s.Total == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", s.Passed, s.Total)
}

func all(list []string, ok func(string) bool) bool {
	return !slices.ContainsFunc(list, func(item string) bool { return !ok(item) })
}
