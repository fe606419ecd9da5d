// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// A record of pam_faillock's tally is 64 bytes in the machine's byte order (faillock.h):
// source[52], a reserved word, status and the time. authfail writes one for each prompt,
// authsucc empties the file after a login.
const (
	recordSize   = 64
	sourceSize   = 52
	statusOffset = 54
	timeOffset   = 56
	statusValid  = 1
	statusRemote = 2 // the source is an address, not a terminal
)

// tally is what pam_faillock knows of a user's tries since the last login.
type tally struct {
	times   []int64
	sources []string // addresses, each once
}

// readTally reads a user's tally: empty where there is none.
func readTally(t *target.Target, user string) (all tally) {
	b, err := t.ReadFile(path.Join(target.FaillockDir, user))
	if err != nil {
		return all
	}
	for r := range slices.Chunk(b, recordSize) {
		if len(r) < recordSize {
			break
		}
		status := binary.NativeEndian.Uint16(r[statusOffset:])
		if status&statusValid == 0 {
			continue
		}
		all.times = append(all.times, int64(binary.NativeEndian.Uint64(r[timeOffset:])))
		source, _, _ := bytes.Cut(r[:sourceSize], []byte{0})
		// A host's name is the other side's to choose, so only what can be an address is shown.
		if s := string(source); status&statusRemote != 0 && s != "" && strings.Trim(s, "0123456789abcdefABCDEF.:") == "" && !slices.Contains(all.sources, s) {
			all.sources = append(all.sources, s)
		}
	}
	slices.Sort(all.times)
	slices.Sort(all.sources)
	return all
}

// lockedUntil returns when pam_faillock lets the user try again, zero if it does now. The
// baked line gives it the numbers of the module's own limit.
func (a tally) lockedUntil(l otp.RateLimit, now time.Time) time.Time {
	if l.Attempts == 0 || len(a.times) < l.Attempts {
		return time.Time{}
	}
	latest, n := a.times[len(a.times)-1], 0
	for _, t := range a.times {
		if latest-t < int64(l.Seconds) {
			n++
		}
	}
	until := time.Unix(latest+int64(l.Seconds)+1, 0)
	if n < l.Attempts || !until.After(now) {
		return time.Time{}
	}
	return until
}

// clearTally lets a user who has a new secret try at once. The file stays, since
// pam_faillock opens one that is missing without its lock.
func clearTally(t *target.Target, user string) error {
	f, err := t.OpenRegular(path.Join(target.FaillockDir, user), os.O_WRONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(0), f.Close())
}
