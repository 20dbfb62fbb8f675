package cluster

import (
	"time"

	"heddle.test/cluster/internal/wire"
)

// Watch looks for words in the clear on machines' networks.
type Watch struct {
	c       *Cluster
	watches map[string]*wire.Watch
}

// Watch begins to look for the words on every wire between machines and on every device of every node (bridge
// and pods' links), until the story ends.
func (c *Cluster) Watch(words ...string) *Watch {
	c.t.Helper()
	w := &Watch{c: c, watches: map[string]*wire.Watch{}}
	for _, machine := range c.bed.Machines() {
		w.on(machine, words)
	}
	return w
}

func (w *Watch) on(machine string, words []string) {
	w.c.t.Helper()
	pid, err := w.c.bed.Pid(machine)
	if err != nil {
		w.c.t.Fatal(err)
	}
	watch, err := wire.WatchFor(pid, words...)
	if err != nil {
		w.c.t.Fatal(err)
	}
	w.c.t.Cleanup(watch.Stop)
	if old := w.watches[machine]; old != nil {
		old.Stop()
	}
	w.watches[machine] = watch
}

// Leave stops looking at a machine that is about to lose its power, and keeps what was seen there: a watch would
// hold the machine's network alive, and its cable with it. The wires to the others are looked at all the same.
func (w *Watch) Leave(machine string) {
	watch := w.watches[machine]
	watch.Stop()
	delete(w.watches, machine)
	w.watches[machine+" before"] = watch
}

// Again looks at a machine that was rebooted: its network is a new one.
func (w *Watch) Again(machine string, words ...string) { w.c.t.Helper(); w.on(machine, words) }

// Also looks for another word from now on.
func (w *Watch) Also(word string) {
	for _, watch := range w.watches {
		watch.Also(word)
	}
}

// Forget counts anew on all machines: what was seen so far is no fault.
func (w *Watch) Forget() {
	for _, watch := range w.watches {
		watch.Forget()
	}
}

// Count is how many frames carried a word so far.
func (w *Watch) Count() int {
	total := 0
	for _, watch := range w.watches {
		count, _ := watch.Seen()
		total += count
	}
	return total
}

// Last is when a word was seen last on any machine.
func (w *Watch) Last() time.Time {
	var last time.Time
	for _, watch := range w.watches {
		if at := watch.Last(); at.After(last) {
			last = at
		}
	}
	return last
}

// Sees waits until a word was seen: the proof that the watch can see.
func (w *Watch) Sees(what string) {
	w.c.t.Helper()
	w.c.Eventually("the watch sees "+what, func() error {
		for _, watch := range w.watches {
			if count, _ := watch.Seen(); count > 0 {
				return nil
			}
		}
		return errNotSeen
	})
}

// NoPlaintext says that no word was seen anywhere, that the watch lost nothing, and that tunnels were in use.
func (w *Watch) NoPlaintext(during string) {
	w.c.t.Helper()
	// What is on its way must have arrived before the books are closed.
	time.Sleep(200 * time.Millisecond)
	total, frames, tunnelled, lost := 0, 0, 0, 0
	for machine, watch := range w.watches {
		count, sightings := watch.Seen()
		all, inTunnel, dropped := watch.Frames()
		total, frames, tunnelled, lost = total+count, frames+all, tunnelled+inTunnel, lost+dropped
		for i, sighting := range sightings {
			if i == 5 {
				w.c.t.Errorf("on %s: … %d frames in all", machine, count)
				break
			}
			w.c.t.Errorf("in the clear on %s during %s: %s", machine, during, sighting)
		}
	}
	verdict := "ok"
	if total > 0 {
		verdict = "FAILED"
	}
	if tunnelled == 0 {
		verdict = "FAILED"
		w.c.t.Errorf("none of %d frames was of a tunnel: nothing was meshed during %s", frames, during)
	}
	if lost > 0 {
		verdict = "INCOMPLETE"
		w.c.t.Errorf("the watch lost %d of %d frames during %s", lost, frames, during)
	}
	w.c.t.Logf("VERDICT wire | %s | frames %d | of tunnels %d | in the clear %d | %s", during, frames, tunnelled, total, verdict)
}
