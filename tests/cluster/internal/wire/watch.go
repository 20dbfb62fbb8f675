package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"heddle.test/cluster/internal/api"
)

const (
	// A few sightings convict; the rest are counted.
	sightingsKept = 50
	// Bytes behind a word that are shown with it.
	wordTail = 8
)

// Sighting is one frame that carries a word in the clear.
type Sighting struct {
	At       time.Time
	Device   string
	From, To netip.AddrPort
	// Word is what was found and the bytes behind it, which say what kind of load it was.
	Word string
}

func (s Sighting) String() string {
	return fmt.Sprintf("%s %s %s -> %s %q", s.At.UTC().Format("15:04:05.000"), s.Device, s.From, s.To, s.Word)
}

// Watch looks at every frame on every device of one machine's network but the loopback (bridge, pods' links,
// eth0; new ones too) for words that nobody there may read. It keeps what it finds, not the frames, and so
// can look on for as long as a story takes.
type Watch struct {
	socket int
	names  map[int]string
	stop   chan struct{}
	done   chan struct{}

	mutex     sync.Mutex
	words     []string
	frames    int
	tunnelled int
	count     int
	lost      int
	sightings []Sighting
	last      time.Time
}

// WatchFor begins to look in the network of a process, and returns when nothing sent afterwards is missed.
func WatchFor(pid int, words ...string) (*Watch, error) {
	w := &Watch{names: map[int]string{}, stop: make(chan struct{}), done: make(chan struct{}), words: words}
	err := api.InNetworkOf(pid, func() error {
		var err error
		// ETH_P_ALL from the start would record before the socket is set up; 0 records nothing until bound.
		w.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		_ = unix.SetsockoptInt(w.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureLimit)
		wait := unix.NsecToTimeval(int64(50 * time.Millisecond))
		if err := unix.SetsockoptTimeval(w.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return err
		}
		return unix.Bind(w.socket, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL)})
	})
	if err != nil {
		return nil, err
	}
	go w.read(pid)
	return w, nil
}

// Also makes the watch look for another word from now on.
func (w *Watch) Also(word string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.words = append(w.words, word)
}

// Forget counts anew: what was seen so far is no fault.
func (w *Watch) Forget() {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.frames, w.tunnelled, w.count, w.lost, w.sightings, w.last = 0, 0, 0, 0, nil, time.Time{}
}

// Stop ends it.
func (w *Watch) Stop() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	<-w.done
}

// Seen is how many frames carried a word, and the first of them.
func (w *Watch) Seen() (int, []Sighting) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.count, append([]Sighting(nil), w.sightings...)
}

// Last is when a word was seen last; zero is never.
func (w *Watch) Last() time.Time {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.last
}

// Frames is how many frames were looked at, how many of them went from or to TunnelPort, and how many the
// kernel had to drop before they could be: a watch that lost frames has not proved anything.
func (w *Watch) Frames() (all, tunnelled, lost int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.frames, w.tunnelled, w.lost
}

// watchNice weighs as much as nine processes that were not asked to be nice.
const watchNice = -10

// TunnelPort is where nodes meet.
const TunnelPort = 15008

func (w *Watch) read(pid int) {
	defer close(w.done)
	defer unix.Close(w.socket)
	// Who reads too late loses frames, and a crowd that starts leaves little time: this thread, which ends with the goroutine, goes first.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), watchNice)
	buffer := make([]byte, frameSize)
	for {
		n, from, err := unix.Recvfrom(w.socket, buffer, 0)
		if err == nil {
			link, _ := from.(*unix.SockaddrLinklayer)
			if link != nil && link.Hatype != unix.ARPHRD_LOOPBACK {
				w.look(pid, buffer[:n], link.Ifindex)
			}
			continue
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			return
		}
		w.countLost()
		select {
		case <-w.stop:
			return
		default:
		}
	}
}

func (w *Watch) countLost() {
	stats, err := unix.GetsockoptTpacketStats(w.socket, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.lost += int(stats.Drops)
}

func (w *Watch) look(pid int, frame []byte, device int) {
	from, to := ends(frame)
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.frames++
	if from.Port() == TunnelPort || to.Port() == TunnelPort {
		w.tunnelled++
	}
	for _, word := range w.words {
		at := bytes.Index(frame, []byte(word))
		if at < 0 {
			continue
		}
		w.count++
		w.last = time.Now()
		if len(w.sightings) < sightingsKept {
			w.sightings = append(w.sightings, Sighting{At: time.Now(), Device: w.name(pid, device), From: from, To: to, Word: string(frame[at:min(at+len(word)+wordTail, len(frame))])})
		}
		return
	}
}

// name asks for a device's name once; a pod's link may be gone by then.
func (w *Watch) name(pid, device int) string {
	if name, known := w.names[device]; known {
		return name
	}
	name := fmt.Sprintf("device %d", device)
	_ = api.InNetworkOf(pid, func() error {
		if link, err := net.InterfaceByIndex(device); err == nil {
			name = link.Name
		}
		return nil
	})
	w.names[device] = name
	return name
}

// ends reads who speaks to whom from an Ethernet frame; what is neither TCP nor UDP over IP has no ports.
func ends(frame []byte) (from, to netip.AddrPort) {
	const ethernet = 14
	if len(frame) < ethernet+20 {
		return
	}
	packet := frame[ethernet:]
	var source, target netip.Addr
	var rest []byte
	var protocol byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		header := int(packet[0]&0x0f) * 4
		if len(packet) < header {
			return
		}
		source, target = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		protocol, rest = packet[9], packet[header:]
	case unix.ETH_P_IPV6:
		if len(packet) < 40 {
			return
		}
		source, target = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
		protocol, rest = packet[6], packet[40:]
	default:
		return
	}
	var ports [2]uint16
	if (protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_UDP) && len(rest) >= 4 {
		ports = [2]uint16{binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])}
	}
	return netip.AddrPortFrom(source, ports[0]), netip.AddrPortFrom(target, ports[1])
}
