// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"errors"
	"fmt"
	"os"
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
		New: func(_ policy.Channel, t *target.Target) Channel {
			return &tty{open: opener(t)}
		},
	})
}

var errNoTerminal = errors.New("not a terminal")

// tty prints envelopes on the system console.
type tty struct{ open openFunc }

func (*tty) Name() string { return policy.ChannelConsole }

func (*tty) Acknowledged() bool { return false }

func (c *tty) Send(ctx context.Context, item Item) error {
	block, err := console.Encode(item.ID, item.User, item.Sealed)
	if err != nil {
		return err
	}
	f, err := c.open(target.Console, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	stop, err := bound(ctx, f)
	if errors.Is(err, os.ErrNoDeadline) {
		return fmt.Errorf("%s: %w", target.Console, errNoTerminal)
	}
	if err != nil {
		return err
	}
	defer stop()
	if _, err := f.Write(block); err != nil {
		return fmt.Errorf("%s: %w", target.Console, writeError(err))
	}
	return nil
}
