// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package login

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

const secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"

// clocked returns codes with a clock of their own.
func clocked(backup ...string) (*Codes, *time.Time) {
	now := time.Unix(1_700_000_010, 0)
	c := NewCodes(secret, backup)
	c.now = func() time.Time { return now }
	return c, &now
}

// expired makes every wait an error.
func expired() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestThreeCodesAtOneMoment(t *testing.T) {
	c, now := clocked()
	*now = now.Add(10 * time.Second)
	var got []string
	for range 3 {
		code, err := c.Next(expired())
		if err != nil || slices.Contains(got, code) {
			t.Fatalf("code %d: %q, %v", len(got)+1, code, err)
		}
		got = append(got, code)
	}
	for _, shift := range []time.Duration{-step, 0, step} {
		want, err := otp.Code(secret, now.Add(shift))
		if err != nil || !slices.Contains(got, want) {
			t.Errorf("the code at %v is not among %v", shift, got)
		}
	}
	if _, err := c.Next(expired()); !errors.Is(err, context.Canceled) {
		t.Errorf("a fourth code: %v", err)
	}
	*now = now.Add(step)
	if code, err := c.Next(expired()); err != nil || slices.Contains(got, code) {
		t.Errorf("a step later: %q, %v", code, err)
	}
	if _, err := c.Next(expired()); !errors.Is(err, context.Canceled) {
		t.Errorf("two codes in one step: %v", err)
	}
}

// At either end of a step a server whose clock is a little off takes one
// neighbour's code only.
func TestNoCodeAtItsEdge(t *testing.T) {
	for _, at := range []struct {
		shift     time.Duration
		neighbour time.Duration // whose code is given out after the current one
		codes     int
	}{{0, -step, 2}, {4 * time.Second, -step, 2}, {5 * time.Second, step, 3}, {20 * time.Second, step, 3}, {21 * time.Second, step, 2}} {
		c, now := clocked()
		*now = now.Add(at.shift)
		var got []string
		for {
			code, err := c.Next(expired())
			if err != nil {
				break
			}
			got = append(got, code)
		}
		want, err := otp.Code(secret, now.Add(at.neighbour))
		if err != nil || len(got) != at.codes || got[1] != want {
			t.Errorf("%v into a step: %v, second %q wanted, %v", at.shift, got, want, err)
		}
	}
}

func TestPaceKeepsTheRateLimit(t *testing.T) {
	c, now := clocked()
	for i := range 3 {
		done, err := c.Pace(expired())
		if err != nil {
			t.Fatalf("attempt %d: %v", i+1, err)
		}
		*now = now.Add(time.Second)
		done()
	}
	if _, err := c.Pace(expired()); !errors.Is(err, context.Canceled) {
		t.Errorf("a fourth attempt: %v", err)
	}
	// The third of the three ended now.
	if got, want := c.Wait(), ratePeriod+rateMargin; got != want {
		t.Errorf("wait %v, want %v", got, want)
	}
	// From here on one attempt in each half of the period: three never lie in one.
	*now = now.Add(c.Wait())
	for i := range 5 {
		done, err := c.Pace(expired())
		if err != nil {
			t.Fatalf("attempt %d: %v", i+4, err)
		}
		done()
		*now = now.Add(ratePeriod / 2)
	}
}

func TestWrongIsNoCode(t *testing.T) {
	c, now := clocked()
	wrong, err := c.Wrong()
	if err != nil || len(wrong) != 6 {
		t.Fatalf("%q, %v", wrong, err)
	}
	for i := -4; i <= 4; i++ {
		if code, _ := otp.Code(secret, now.Add(time.Duration(i)*step)); code == wrong {
			t.Errorf("it is the code %d steps from now", i)
		}
	}
}

func TestBackupCodesAreGivenOnce(t *testing.T) {
	c, _ := clocked("12345678", "87654321")
	copied := c.Copy()
	for _, want := range []string{"12345678", "87654321"} {
		if got, err := c.Backup(); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if _, err := c.Backup(); !errors.Is(err, ErrNoBackupCode) {
		t.Errorf("a third: %v", err)
	}
	if got, err := copied.Backup(); err != nil || got != "12345678" {
		t.Errorf("the copy has lost its codes: %q, %v", got, err)
	}
}

func TestCodesDoNotPrint(t *testing.T) {
	c, _ := clocked("12345678")
	text := fmt.Sprintf("%v %+v %#v %s %q %v", c, c, c, c, c, Account{Codes: c})
	if strings.Contains(text, secret) || strings.Contains(text, "12345678") {
		t.Errorf("printed as %q", text)
	}
}

func TestPrompts(t *testing.T) {
	tests := []struct {
		shown, prompt string // empty: none
	}{
		{"(alice@127.0.0.1) Verification code: ", "(alice@127.0.0.1) Verification code: "},
		{"Using username \"alice\".\r\nKeyboard-interactive authentication prompts from server:\r\n| Verification code: ", "| Verification code: "},
		{"alice@127.0.0.1's password: ", "alice@127.0.0.1's password: "},
		{"Password: ", "Password: "},
		{"Enter passphrase for key '/tmp/x': ", "Enter passphrase for key '/tmp/x': "},
		{"Verification code: \r\n", ""},
		{"The verification code is on your phone\r\n", ""},
		{"Last login: ", ""},
		{"", ""},
	}
	for _, tt := range tests {
		got := ""
		if m := promptEnd.FindStringSubmatch(tt.shown); m != nil {
			got = m[1]
		}
		if got != tt.prompt {
			t.Errorf("%q: got %q, want %q", tt.shown, got, tt.prompt)
		}
	}
}
