package wire

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"heddle.test/cluster/internal/api"
)

const (
	// A jumbo frame and then some; what is longer is cut, which a search for a marker survives.
	frameSize = 16 << 10
	// A test's traffic; beyond it the oldest is not worth more memory.
	captureLimit = 64 << 20
)

// Capture is what passed one machine's end of the wire since it was begun.
type Capture struct {
	socket int
	mutex  sync.Mutex
	frames [][]byte
	size   int
	over   bool
	done   chan struct{}
	stop   chan struct{}
}

// Listen begins to record every frame on an interface in the network of a process. It returns when the
// recording has begun, so that nothing sent afterwards is missed.
func Listen(pid int, device string) (*Capture, error) {
	c := &Capture{done: make(chan struct{}), stop: make(chan struct{})}
	err := api.InNetworkOf(pid, func() error {
		link, err := interfaceIndex(device)
		if err != nil {
			return err
		}
		c.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(bigEndian(unix.ETH_P_ALL)))
		if err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		// A busy machine must not lose frames between two reads.
		_ = unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureLimit)
		wait := unix.NsecToTimeval(int64(50 * time.Millisecond))
		if err := unix.SetsockoptTimeval(c.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return err
		}
		return unix.Bind(c.socket, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: link})
	})
	if err != nil {
		return nil, err
	}
	go c.read()
	return c, nil
}

// Stop ends the recording after what has already arrived is read.
func (c *Capture) Stop() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	<-c.done
}

// Frames says how many frames were recorded, and whether the limit cut the recording short.
func (c *Capture) Frames() (int, bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return len(c.frames), c.over
}

// Contains says whether any frame carries these bytes.
func (c *Capture) Contains(marker string) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, frame := range c.frames {
		if bytes.Contains(frame, []byte(marker)) {
			return true
		}
	}
	return false
}

func (c *Capture) read() {
	defer close(c.done)
	defer unix.Close(c.socket)
	buffer := make([]byte, frameSize)
	for {
		n, _, err := unix.Recvfrom(c.socket, buffer, 0)
		if err == nil {
			c.keep(buffer[:n])
			continue
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			return
		}
		select {
		case <-c.stop:
			return
		default:
		}
	}
}

func (c *Capture) keep(frame []byte) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.size+len(frame) > captureLimit {
		c.over = true
		return
	}
	c.size += len(frame)
	c.frames = append(c.frames, bytes.Clone(frame))
}

// interfaceIndex asks in the thread's own network; the net package could ask from another thread.
func interfaceIndex(device string) (int, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq(device)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCGIFINDEX, request); err != nil {
		return 0, fmt.Errorf("interface %s: %w", device, err)
	}
	return int(request.Uint32()), nil
}

func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }
