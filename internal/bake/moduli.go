// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// minModulus is the size in bits of the smallest prime that a
// diffie-hellman-group-exchange may use. moduli(5) counts one less than people.
const minModulus = 3071

// strongModuli leaves the primes below minModulus out of a file of moduli(5).
// Comments, and lines that are not understood, stay.
func strongModuli(text string) (kept string, left int) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		// Timestamp Type Tests Tries Size Generator Modulus
		f := strings.Fields(line)
		if len(f) == 7 && f[0][0] != '#' {
			if size, err := strconv.Atoi(f[4]); err == nil && size < minModulus {
				continue
			}
			left++
		}
		b.WriteString(line)
	}
	return b.String(), left
}

// moduli reads the file of primes, and what it is to become. ours is false
// where it is left alone: by the policy, or since there is none. sshd then uses
// groups of its own, of 2048 bits and more.
func (f *facts) moduli(t *target.Target) (now, want string, ours bool, err error) {
	if f.policy.SSHD.Algorithms == policy.AlgorithmsDistro {
		return "", "", false, nil
	}
	b, err := t.ReadFile(target.Moduli)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", false, nil
	}
	if err != nil {
		return "", "", false, err
	}
	want, left := strongModuli(string(b))
	if left == 0 {
		return "", "", false, nil // sshd would fall back on a smaller group
	}
	return string(b), want, true, nil
}

func (b *baker) moduli(context.Context) (string, error) {
	now, want, ours, err := b.facts.moduli(b.t)
	if err != nil || !ours {
		return target.Moduli + " left alone", err
	}
	if now == want {
		return target.Moduli + said(false), nil
	}
	fi, err := b.t.Lstat(target.Moduli)
	if err != nil {
		return "", err
	}
	_, err = b.journal.write(target.Moduli, []byte(want), fi.Mode().Perm())
	return target.Moduli + said(true), err
}

// moduli looks whether an update of the package has brought small primes back.
func (c *checker) moduli() {
	now, want, ours, err := c.facts.moduli(c.t)
	switch {
	case err != nil:
		c.add(Degraded, "moduli", target.Moduli, err.Error(), bakeAgain)
	case ours && now != want:
		c.add(Degraded, "moduli", target.Moduli, fmt.Sprintf("holds primes of less than %d bits", minModulus+1), bakeAgain)
	}
}
