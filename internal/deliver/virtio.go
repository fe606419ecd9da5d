// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// Errors of the virtio channel.
var (
	ErrNoPort   = errors.New("no virtio-serial port of that name in this machine; add it to the machine's configuration")
	ErrPortBusy = errors.New("another program has the port open")
	ErrNoHost   = errors.New("nobody listens at the host's end; start totpctl receive there")
	ErrHash     = errors.New("the host confirmed another envelope")
)

func init() {
	Register(Driver{
		Type:         policy.ChannelVirtio,
		Acknowledged: true,
		Deadline:     20 * time.Second,
		Check:        checkVirtio,
		New: func(c policy.Channel, t *target.Target) Channel {
			return &virtio{port: port(c), t: t, open: opener(t), grace: hostGrace}
		},
	})
}

type virtio struct {
	port  string
	t     *target.Target
	open  openFunc
	grace time.Duration
}

// Name is "virtio" for the default port, and "virtio:PORT" for another.
func (v *virtio) Name() string {
	if v.port == policy.DefaultPort {
		return policy.ChannelVirtio
	}
	return policy.ChannelVirtio + ":" + v.port
}

func (v *virtio) Acknowledged() bool { return true }

// Send writes one frame to the port and waits for the host's answer to it.
func (v *virtio) Send(ctx context.Context, item Item) error {
	payload, err := armored(item)
	if err != nil {
		return err
	}
	msg, err := frame.Marshal(item.ID, item.User, payload)
	if err != nil {
		return err
	}
	dev, err := v.find()
	if err != nil {
		return err
	}
	f, err := v.open(dev, os.O_RDWR)
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("port %q: %w", v.port, ErrPortBusy)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	stop, err := bound(ctx, f)
	if err != nil {
		return err
	}
	defer stop()

	if err := v.settle(ctx, f); err != nil {
		return fmt.Errorf("port %q: %w", v.port, err)
	}
	if _, err := f.Write(msg); err != nil {
		return fmt.Errorf("port %q: %w", v.port, writeError(err))
	}
	if err := answer(f, payload); err != nil {
		return fmt.Errorf("port %q: %w", v.port, err)
	}
	return nil
}

// find returns the device of the port. It asks the kernel, because the links
// under /dev/virtio-ports are udev's and not there without it.
func (v *virtio) find() (string, error) {
	entries, err := v.t.ReadDir(target.VirtioPorts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, e := range entries {
		name, err := v.t.ReadFile(path.Join(target.VirtioPorts, e.Name(), "name"))
		if err == nil && strings.TrimSuffix(string(name), "\n") == v.port {
			return path.Join("/dev", e.Name()), nil
		}
	}
	return "", fmt.Errorf("port %q: %w", v.port, ErrNoPort)
}

const (
	// hostGrace is how long a host may take to (re)connect once the port is open.
	hostGrace = 2 * time.Second

	// quiet is how long nothing must arrive before the port counts as drained.
	// What a host wrote while nobody had the port open arrives only now.
	quiet = 100 * time.Millisecond

	maxStale = 64 << 10
)

// settle reads what is left from earlier attempts, and returns ErrNoHost if
// nobody is there: reading such a port yields an end of file at once, while
// writing to it would wait for ever.
func (v *virtio) settle(ctx context.Context, f device) error {
	buf := make([]byte, 4096)
	stale := 0
	for start := time.Now(); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			return err
		}
		n, err := f.Read(buf)
		stale += n
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			deadline, _ := ctx.Deadline()
			if err := f.SetReadDeadline(deadline); err != nil {
				return err
			}
			return ctx.Err() // what was just set may have replaced the end set by bound
		case isHangup(err):
			if time.Since(start) > v.grace {
				return ErrNoHost
			}
			pauseFor(ctx, quiet)
		case err != nil:
			return err
		case stale > maxStale:
			return frame.ErrAnswer
		}
	}
}

// answer reads the host's answer to payload. Confirmations of other envelopes
// are passed over: they can be late ones, for attempts that ended before.
func answer(f device, payload []byte) error {
	want, err := frame.ParseAnswer(frame.OK(payload))
	if err != nil {
		return err
	}
	var buf []byte
	late := false
	for {
		line, rest, ok := bytes.Cut(buf, []byte("\n"))
		if !ok {
			if len(buf) > frame.MaxLine {
				return frame.ErrAnswer
			}
			b := make([]byte, 512)
			n, err := f.Read(b)
			buf = append(buf, b[:n]...)
			if n == 0 && err != nil {
				if late && errors.Is(err, os.ErrDeadlineExceeded) {
					return ErrHash
				}
				return readError(err)
			}
			continue
		}
		buf = rest
		sum, err := frame.ParseAnswer(string(line))
		if err != nil {
			return err
		}
		if sum == want {
			return nil
		}
		late = true
	}
}

func port(c policy.Channel) string {
	if c.Port == "" {
		return policy.DefaultPort
	}
	return c.Port
}

var errPortName = errors.New("must be at most 200 printable characters")

func checkVirtio(c policy.Channel) error {
	if p := port(c); len(p) > 200 || clip(p) != p {
		return fmt.Errorf("port: %.64q: %w", p, errPortName)
	}
	return nil
}

// armored returns the envelope as text that ends with a newline.
func armored(item Item) ([]byte, error) {
	b, err := seal.Armor(item.Sealed)
	if err != nil {
		return nil, err
	}
	if !bytes.HasSuffix(b, []byte("\n")) {
		b = append(b, '\n')
	}
	return b, nil
}
