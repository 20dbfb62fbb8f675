package image

import (
	"slices"
	"testing"
)

func TestWhatLddListsIsWhatTheLinkerWillLookFor(t *testing.T) {
	listed := "\tlinux-vdso.so.1 (0x00007ffd)\n" +
		"\tlibnftables.so.1 => /lib/x86_64-linux-gnu/libnftables.so.1 (0x00007f)\n" +
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
	got, err := libraries(listed)
	if want := []string{"/lib/x86_64-linux-gnu/libnftables.so.1", "/lib64/ld-linux-x86-64.so.2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("libraries: %v, %v", got, err)
	}
	if got, err := libraries("\tnot a dynamic executable\n"); err != nil || len(got) != 0 {
		t.Errorf("a static program has libraries %v, %v", got, err)
	}
	if _, err := libraries("\tlibgone.so.1 => not found\n"); err == nil {
		t.Error("a missing library is not an error")
	}
}

func TestAProgramIsCarriedWithItsInterpreter(t *testing.T) {
	image := Image{Names: []string{"example.test/a:v1"}}
	if err := image.Carry("ip"); err != nil {
		t.Fatal(err)
	}
	var interpreters int
	for _, path := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"} {
		if _, there := image.Files[path]; there {
			interpreters++
		}
	}
	if _, there := image.Files["/usr/bin/ip"]; !there || interpreters != 1 {
		t.Errorf("the image holds %d interpreters; ip: %v", interpreters, there)
	}
	if err := image.Carry("no-such-program"); err == nil {
		t.Error("a program that is not there was carried")
	}
}
