// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

const (
	hookTime    = time.Minute
	hooksAtOnce = 4
	hooksQueued = 1024
)

// arrival is an envelope as a hook is told of it: by names that have been checked.
type arrival struct{ file, client, user, id string }

// hooks runs a program for each new envelope, a few at a time, without anybody
// waiting for it.
type hooks struct {
	program string
	queue   chan arrival
	logf    func(format string, args ...any)
	workers sync.WaitGroup

	mu    sync.Mutex
	ended bool
}

// newHooks finds the program. There is nothing to run if its name is empty.
func newHooks(program string, logf func(format string, args ...any)) (*hooks, error) {
	h := &hooks{queue: make(chan arrival, hooksQueued), logf: logf}
	if program == "" {
		return h, nil
	}
	var err error
	if h.program, err = exec.LookPath(program); err != nil {
		return nil, fmt.Errorf("hook: %w", err)
	}
	for range hooksAtOnce {
		h.workers.Go(func() {
			for e := range h.queue {
				h.run(e)
			}
		})
	}
	return h, nil
}

// arrived has the program run.
func (h *hooks) arrived(e arrival) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.program == "" || h.ended {
		return
	}
	select {
	case h.queue <- e:
	default:
		h.logf("%s: the hook is not run: %d wait already", e.file, hooksQueued)
	}
}

// wait returns when the program has run for all envelopes that have arrived.
func (h *hooks) wait() {
	h.mu.Lock()
	h.ended = true
	close(h.queue)
	h.mu.Unlock()
	h.workers.Wait()
}

func (h *hooks) run(e arrival) {
	ctx, cancel := context.WithTimeout(context.Background(), hookTime)
	defer cancel()
	// From the root, since the program may be in another directory.
	file, err := filepath.Abs(e.file)
	if err != nil {
		h.logf("%s: the hook is not run: %v", e.file, err)
		return
	}
	cmd := exec.CommandContext(ctx, h.program, file)
	cmd.Env = append(os.Environ(), "TOTP_FILE="+file, "TOTP_CLIENT="+e.client, "TOTP_USER="+e.user, "TOTP_ID="+e.id)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		h.logf("%s: the hook has failed: %v", e.file, err)
	}
}
