// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"sync"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// repair puts right what a login depends on. It prints nothing where nothing is to
// be done.
func (e env) repair(t *target.Target, boot bool) error {
	o := bake.RepairOptions{Log: e.err, Running: t.Live(), Boot: boot}
	if c, err := openConsole(target.Console, consolePatience); t.Live() && err == nil {
		defer c.Close()
		o.Console = c
	}
	_, err := bake.Repair(e, t, o)
	return err
}

// settleStep is how often repairUntil looks at the files.
const settleStep = 100 * time.Millisecond

// repairUntil repairs again until the files have not changed for a while. systemd
// does not watch a path while the service that it has started runs, and a package
// manager changes files more than once.
func (e env) repairUntil(t *target.Target, settle time.Duration) error {
	w := bake.NewWatch(t)
	for {
		before := w.Stamp()
		stop := func() {}
		if settle > 0 {
			stop = e.guard(t, w)
		}
		err := e.repair(t, false)
		stop()
		if settle == 0 || e.Err() != nil {
			return err
		}
		// What the repair itself has changed is looked at once more.
		changed := w.Stamp() != before
		for end := time.Now().Add(settle); !changed && time.Now().Before(end); {
			select {
			case <-e.Done():
				return err
			case <-time.After(settleStep):
			}
			changed = w.Stamp() != before
		}
		if !changed {
			return err
		}
	}
}

// guard repairs the PAM service file while a whole repair is at work, which asks sshd
// about each user and takes its time on a busy machine.
func (e env) guard(t *target.Target, w *bake.Watch) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	last := w.Stamp()
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(settleStep):
			}
			if w.Stamp() == last {
				continue
			}
			// What it cannot repair, the whole repair says.
			_, _ = bake.Repair(e, t, bake.RepairOptions{Log: e.err, Boot: true})
			last = w.Stamp()
		}
	})
	return func() { close(done); wg.Wait() }
}
