package addr

import (
	"strings"
	"testing"
)

func TestADualBedHasBothFamiliesEverywhere(t *testing.T) {
	p := Default(Dual)
	if got := Join(p.Node(2)); got != "192.168.77.12,fd77:0:0:1::c" {
		t.Errorf("node 2 is %s", got)
	}
	if got := Join(p.PodRange(2)); got != "10.244.2.0/24,fd77:0:1:2::/64" {
		t.Errorf("pods of node 2 are %s", got)
	}
	if got := Join(p.DNS()); got != "10.96.0.10,fd77:0:2::a" {
		t.Errorf("DNS is %s", got)
	}
	if err := p.Check(2); err != nil {
		t.Error(err)
	}
}

func TestATakenRangeIsNamedInOneLine(t *testing.T) {
	p := Default(IPv4)
	if err := p.Override("pod", "10.96.0.0/12"); err != nil {
		t.Fatal(err)
	}
	err := p.Check(2)
	if err == nil || !strings.Contains(err.Error(), "the pod range 10.96.0.0/12 overlaps the service range 10.96.0.0/16") {
		t.Errorf("got %v", err)
	}
}

func TestARangeOfTheWrongFamilyOrCountIsRefused(t *testing.T) {
	p := Default(IPv4)
	if p.Override("pod", "fd00::/48") == nil {
		t.Error("an IPv6 range was taken for an IPv4 bed")
	}
	if p.Override("node", "10.0.0.0/24,fd00::/64") == nil {
		t.Error("two ranges were taken for a bed of one family")
	}
}

func TestAnAddressOffsetCarriesIntoTheNextByte(t *testing.T) {
	if got := Nth(ranges("10.0.0.0/16")[0], 300).String(); got != "10.0.1.44" {
		t.Errorf("got %s", got)
	}
}
