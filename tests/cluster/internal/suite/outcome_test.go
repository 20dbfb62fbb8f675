package suite

import (
	"strings"
	"testing"
)

var small = Catalogue{
	Profiles: []Profile{
		{Name: "MESH-HTTP", Core: []string{"Mesh", "HTTPRoute"}, Extended: []string{"MeshRewrite"}},
		{Name: "GATEWAY-HTTP", Core: []string{"Gateway", "HTTPRoute"}},
	},
	Tests: []Test{
		{Name: "Basic", Features: []string{"Mesh"}},
		{Name: "Split", Features: []string{"Mesh", "HTTPRoute"}},
		{Name: "Rewrite", Features: []string{"Mesh", "HTTPRoute", "MeshRewrite"}},
		{Name: "Odd", Features: []string{"Mesh", "Odd"}},
		{Name: "Ingress", Features: []string{"Gateway"}},
		{Name: "Ours", Features: []string{"Mesh"}, Extra: true},
	},
}

const rawLog = `=== RUN   TestConformance
    --- PASS: TestConformance/Basic (0.10s)
        --- FAIL: TestConformance/Split/sub_test (0.10s)
    --- FAIL: TestConformance/Split (0.20s)
some line without an end    --- PASS: TestConformance/Odd (0.01s)
    --- SKIP: TestConformance/Ingress (0.00s)
`

func TestClaimsAreWhatTheRunIsHeldTo(t *testing.T) {
	claims := Claims{Profiles: []string{"MESH-HTTP"}, Features: []string{"MeshRewrite", "Odd"}}
	o := Judge(small, claims, Read(rawLog))
	line := o.Lines[0]
	if line.Core != (Score{1, 2}) || line.Extended != (Score{0, 1}) || o.Outside != (Score{1, 1}) {
		t.Errorf("got %+v", o)
	}
	if strings.Join(o.Failed, ",") != "Split" || strings.Join(o.Missing, ",") != "Rewrite" || o.Unclaimed != 1 {
		t.Errorf("got %+v", o)
	}
	if o.Conformant() {
		t.Error("a failed and a missing test were called conformant")
	}
}

func TestAClaimedTestThatIsSkippedIsNotPassed(t *testing.T) {
	o := Judge(small, Claims{Profiles: []string{"GATEWAY-HTTP"}}, Read(rawLog))
	if o.Conformant() || len(o.Skipped) != 1 {
		t.Errorf("got %+v", o)
	}
}

func TestNothingClaimedIsNotConformant(t *testing.T) {
	if (Outcome{}).Conformant() {
		t.Error("an empty run was called conformant")
	}
}

func TestAllClaimedAndPassedIsConformant(t *testing.T) {
	results := map[string]Result{"Basic": Passed, "Split": Passed}
	if o := Judge(small, Claims{Profiles: []string{"MESH-HTTP"}}, results); !o.Conformant() {
		t.Errorf("got %+v", o)
	}
}

func TestASingleTestIsJudgedAlone(t *testing.T) {
	o := Judge(small, Claims{Profiles: []string{"MESH-HTTP"}, Only: "Basic"}, Read(rawLog))
	if !o.Conformant() || o.Lines[0].Core != (Score{1, 1}) {
		t.Errorf("got %+v", o)
	}
}

func TestTheTableNamesWhatFailed(t *testing.T) {
	var text strings.Builder
	Judge(small, Claims{Profiles: []string{"MESH-HTTP"}}, Read(rawLog)).Table(&text)
	for _, want := range []string{"MESH-HTTP                   1/2            -", "failed (1):\n  Split\n", "not claimed: 3 tests"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
}

func TestATestThatTheSuiteLacksCountsForNoProfile(t *testing.T) {
	results := Read("    --- PASS: TestConformance/Basic (0.1s)\n    --- PASS: TestConformance/Split (0.1s)\n    --- FAIL: TestExtra/Ours (0.1s)\n")
	claims := Claims{Profiles: []string{"MESH-HTTP"}}
	if o := Judge(small, claims, results); !o.Conformant() || o.Extra.Total != 0 {
		t.Errorf("not asked for, it was judged: %+v", o)
	}
	claims.Extra = true
	if o := Judge(small, claims, results); o.Conformant() || o.Extra != (Score{0, 1}) || o.Lines[0].Core != (Score{2, 2}) || o.Outside.Total != 0 {
		t.Errorf("got %+v", o)
	}
}
