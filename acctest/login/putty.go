// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package login

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// PuTTY is plink from PATH, with keys that puttygen has converted.
type PuTTY struct {
	Dir string // stands in for the user's ~/.putty; must exist
}

// serverSent is how PuTTY says that the server refused, with the methods it
// would have gone on with.
var serverSent = regexp.MustCompile(`No supported authentication methods available \(server sent: ([a-z,-]*)\)`)

// Name returns "plink".
func (PuTTY) Name() string { return "plink" }

// Login runs plink on a terminal. Of the methods it knows whether the key and
// keyboard-interactive are wanted; a password is never tried.
func (c PuTTY) Login(ctx context.Context, s Server, t Try) Result {
	start := time.Now()
	args := []string{"-ssh", "-noagent", "-noshare", "-T", "-P", strconv.Itoa(s.Port), "-l", t.User}
	for _, key := range s.HostKeys {
		pub, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
		if err != nil {
			return Result{Detail: fmt.Sprintf("host key %q: %v", key, err)}
		}
		args = append(args, "-hostkey", ssh.FingerprintSHA256(pub))
	}
	if t.Key != nil {
		ppk, err := t.Key.PPK(ctx)
		if err != nil {
			return Result{Detail: err.Error()}
		}
		args = append(args, "-i", ppk)
	}
	if !slices.Contains(t.Methods, KeyboardInteractive) {
		args = append(args, "-batch") // asks nothing
	}
	p := newProof(t.User)
	cmd := exec.Command("plink", append(args, s.Host, p.command)...)
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return Result{Detail: err.Error()}
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "PUTTYDIR=" + dir, "TERM=dumb", "LC_ALL=C"}
	d := converse(ctx, cmd, t.Answers)
	r := Result{Prompts: d.prompts, Took: time.Since(start)}
	sent := serverSent.FindStringSubmatch(d.text)
	switch {
	case d.err == nil && strings.Contains(d.text, p.output):
		r.Outcome = In
	case len(d.prompts) > 0 && strings.Contains(d.text, "Access denied"):
		r.Outcome = Refused // it then asks again, until the server has enough
	case sent != nil && !errors.Is(d.err, context.DeadlineExceeded):
		r.Outcome = Unasked
		r.Remaining = strings.Split(sent[1], ",")
	case strings.Contains(d.text, "Cannot answer interactive prompts in batch mode"):
		r.Outcome = Unasked // the server did ask; this attempt has no person to answer
		r.Remaining = []string{KeyboardInteractive}
	default:
		r.Detail = fmt.Sprintf("%s (%v)", lastWords(d.text), d.err)
	}
	return r
}
