package balancer

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var ranges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/29"), netip.MustParsePrefix("2001:db8::/125")}

func service(key string, edit func(*Service)) Service {
	s := Service{Key: key, Wants: true, Families: []string{"IPv4"}}
	if edit != nil {
		edit(&s)
	}
	return s
}

func check(t *testing.T, services []Service, want ...Change) {
	t.Helper()
	if got := Choose(ranges, services); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestEachServiceGetsItsOwnAddress(t *testing.T) {
	check(t, []Service{service("b", nil), service("a", nil)},
		Change{Key: "a", Addresses: []string{"192.0.2.1"}}, Change{Key: "b", Addresses: []string{"192.0.2.2"}})
}

func TestADualServiceGetsOneOfEachFamilyInItsOrder(t *testing.T) {
	check(t, []Service{service("a", func(s *Service) { s.Families = []string{"IPv6", "IPv4"} })},
		Change{Key: "a", Addresses: []string{"2001:db8::1", "192.0.2.1"}})
}

func TestARequestedAddressIsHonoured(t *testing.T) {
	check(t, []Service{service("a", func(s *Service) { s.Requested = []string{"192.0.2.5"} })},
		Change{Key: "a", Addresses: []string{"192.0.2.5"}})
}

func TestAnAddressOnceGivenStaysEvenForANewcomerThatSortsFirst(t *testing.T) {
	check(t, []Service{service("z", func(s *Service) { s.Has = []string{"192.0.2.1"} }), service("a", nil)},
		Change{Key: "a", Addresses: []string{"192.0.2.2"}})
}

func TestATakenOrForeignRequestIsNamedAndGetsNothing(t *testing.T) {
	changes := Choose(ranges, []Service{
		service("a", func(s *Service) { s.Has = []string{"192.0.2.1"} }),
		service("b", func(s *Service) { s.Requested = []string{"192.0.2.1"} }),
		service("c", func(s *Service) { s.Requested = []string{"10.0.0.1"} }),
	})
	if len(changes) != 2 || !strings.Contains(changes[0].Problem, "taken by a") || !strings.Contains(changes[1].Problem, "not in the bed's range") {
		t.Errorf("got %+v", changes)
	}
}

func TestAServiceThatIsNoLongerOursGivesItsAddressBack(t *testing.T) {
	check(t, []Service{service("a", func(s *Service) { s.Wants, s.Has = false, []string{"192.0.2.1"} })}, Change{Key: "a"})
}

func TestAFullRangeSaysSo(t *testing.T) {
	var all []Service
	for _, key := range strings.Split("abcdefg", "") {
		all = append(all, service(key, nil))
	}
	changes := Choose(ranges, all)
	if last := changes[len(changes)-1]; !strings.Contains(last.Problem, "no address is free") {
		t.Errorf("got %+v", last)
	}
}

func TestChoosingAgainChangesNothing(t *testing.T) {
	check(t, []Service{service("a", func(s *Service) { s.Has = []string{"192.0.2.3"} })})
}
