// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func init() {
	Register(Driver{
		Type: policy.ChannelConsole,
		// The largest card, twice, takes a minute at 9600 baud.
		Deadline: 2 * time.Minute,
		Check:    func(policy.Channel) error { return nil },
		New: func(c policy.Channel, t *target.Target) Channel {
			return &tty{device: c.Device, open: opener(t)}
		},
	})
}

var errNoTerminal = errors.New("not a terminal")

// tty prints envelopes on the system console, or on another serial port. Of that,
// the lines are set as the kernel has them: on a virtual machine nothing depends on
// their speed.
type tty struct {
	device string // empty: the system console
	open   openFunc
}

// Name is the type, and the port if that is not the system console.
func (c *tty) Name() string {
	if c.device == "" {
		return policy.ChannelConsole
	}
	return policy.ChannelConsole + ":" + strings.TrimPrefix(c.device, "/dev/")
}

func (c *tty) path() string {
	if c.device == "" {
		return target.Console
	}
	return c.device
}

func (*tty) Acknowledged() bool { return false }

func (c *tty) Send(ctx context.Context, item Item) error {
	block, err := console.Encode(item.ID, item.User, item.Sealed)
	if err != nil {
		return err
	}
	f, err := c.open(c.path(), os.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	stop, err := bound(ctx, f)
	if errors.Is(err, os.ErrNoDeadline) {
		return fmt.Errorf("%s: %w", c.path(), errNoTerminal)
	}
	if err != nil {
		return err
	}
	defer stop()
	if _, err := f.Write(block); err != nil {
		return fmt.Errorf("%s: %w", c.path(), writeError(err))
	}
	return nil
}
