// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limit is how long a self-test may take on a slow machine, an emulated one among
// them.
const limit = 3 * time.Minute

// outside runs the process inside, and hands out its rows.
func outside(ctx context.Context, o Options, what order) ([]Row, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// A process dies with the thread that started it (PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.CommandContext(ctx, o.Self[0], o.Self[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe() // its end, too, ends the process
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSPC) {
			err = fmt.Errorf("%w: %w; run it as root, and not in a container that forbids them; skip_selftest leaves it out where this system is a proven one", ErrNamespaces, err)
		}
		return nil, err
	}
	var rows []Row
	var said message
	err = json.NewEncoder(in).Encode(what)
	for dec := json.NewDecoder(out); err == nil && !said.Done && said.Error == ""; {
		said = message{}
		if err = dec.Decode(&said); err == nil && said.Row != nil {
			said.Row.Number = said.Number
			rows = append(rows, *said.Row)
			say(o.Log, *said.Row)
		}
	}
	in.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	switch {
	case said.Done:
		return rows, nil
	case ctx.Err() != nil:
		return rows, fmt.Errorf("%w: %w", ErrIncomplete, ctx.Err())
	case said.Error != "":
		return rows, fmt.Errorf("%w: %s", ErrIncomplete, said.Error)
	}
	return rows, fmt.Errorf("%w: %w: %s", ErrIncomplete, err, lastLine(stderr.String()))
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
