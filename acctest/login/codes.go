// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package login

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// ErrNoBackupCode means that all backup codes of an account are used up.
var ErrNoBackupCode = errors.New("no backup code is left")

// The rate limit of the policy's default.
const (
	rateAttempts = 3
	ratePeriod   = 30 * time.Second
	rateMargin   = 2 * time.Second // whole seconds, and the server's clock
)

const (
	// clockMargin is how far the server's clock may be from this machine's.
	clockMargin = 5 * time.Second

	// loginMargin is that, and how long a login may take to come to the code.
	loginMargin = clockMargin + 5*time.Second
)

// step is how long a code is the current one.
const step = otp.Period * time.Second

// Codes gives out the codes of one secret, none twice, and keeps count of
// attempts so that none meets the rate limit of 3 in 30 seconds. The module
// takes the codes of the previous, this and the next step, so three logins can
// be had at nearly every moment. It prints as a placeholder.
type Codes struct {
	mu       sync.Mutex
	secret   string
	backup   []string
	used     map[int64]bool
	attempts []attempt // the last ones
	now      func() time.Time
}

// attempt is when the server was asked for a prompt, at the earliest and the latest.
type attempt struct{ begun, ended time.Time }

// NewCodes returns the codes of a secret in base32 and its backup codes.
func NewCodes(secret string, backup []string) *Codes {
	return &Codes{secret: secret, backup: slices.Clone(backup), used: map[int64]bool{}, now: time.Now}
}

// Copy returns codes of the same secret that know nothing of what is done with
// the original from now on: for a copy of the server.
func (c *Codes) Copy() *Codes {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &Codes{secret: c.secret, backup: slices.Clone(c.backup), used: maps.Clone(c.used),
		attempts: slices.Clone(c.attempts), now: c.now}
}

// Next returns a code that is valid now and was not given out before, waiting
// for one where three are gone.
func (c *Codes) Next(ctx context.Context) (string, error) {
	for {
		code, wait, err := c.next()
		if err != nil || code != "" {
			return code, err
		}
		if err := sleep(ctx, wait); err != nil {
			return "", err
		}
	}
}

// Wrong returns six digits that are no code of the secret within minutes.
func (c *Codes) Wrong() (string, error) {
	now := c.now()
	var near []string
	for i := -10; i <= 10; i++ {
		code, err := otp.Code(c.secret, now.Add(time.Duration(i)*step))
		if err != nil {
			return "", err
		}
		near = append(near, code)
	}
	for n := 100000; ; n += 7 {
		if code := fmt.Sprint(n); !slices.Contains(near, code) {
			return code, nil
		}
	}
}

// Backup returns a backup code that was not given out before.
func (c *Codes) Backup() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.backup) == 0 {
		return "", ErrNoBackupCode
	}
	code := c.backup[0]
	c.backup = c.backup[1:]
	return code, nil
}

// Pace waits until an attempt would not be refused for its number, and returns
// a function to be called when the attempt is over.
func (c *Codes) Pace(ctx context.Context) (done func(), err error) {
	for {
		wait := c.Wait()
		if wait == 0 {
			begun := c.now()
			return func() { c.count(begun) }, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// Wait returns how long Pace would wait now.
func (c *Codes) Wait() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.attempts) < rateAttempts {
		return 0
	}
	first, last := c.attempts[len(c.attempts)-rateAttempts], c.attempts[len(c.attempts)-1]
	// Three prompts within the period lock the account for as long after the third,
	// unless one was a success. That is not known here.
	if last.begun.Sub(first.ended) >= ratePeriod {
		return 0
	}
	return max(0, last.ended.Add(ratePeriod+rateMargin).Sub(c.now()))
}

// String hides the secret.
func (c *Codes) String() string { return "codes" }

// Format hides the secret under every verb.
func (c *Codes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// at returns the code of a moment from now, whether used or not.
func (c *Codes) at(shift time.Duration) (string, error) {
	return otp.Code(c.secret, c.now().Add(shift))
}

func (c *Codes) count(begun time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempts = append(c.attempts, attempt{begun, c.now()})
}

func (c *Codes) next() (code string, wait time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	this := now.Unix() / otp.Period
	begun, ends := now.Sub(time.Unix(this*otp.Period, 0)), time.Unix((this+1)*otp.Period, 0).Sub(now)
	// The next step's code is valid longer than the previous one's.
	for _, s := range []struct {
		step int64
		wait time.Duration // until it is certain that the server is near enough
	}{{this, 0}, {this + 1, clockMargin - begun}, {this - 1, loginMargin - ends}} {
		switch {
		case c.used[s.step]:
		case s.wait <= 0:
			c.used[s.step] = true
			code, err := otp.Code(c.secret, time.Unix(s.step*otp.Period, 0))
			return code, 0, err
		case s.step > this:
			wait = s.wait
		}
	}
	if wait == 0 {
		wait = ends
	}
	return "", wait, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
