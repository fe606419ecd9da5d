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

	"github.com/creack/pty"
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
	args, err := puttyArgs(ctx, s, t.User, t.Key)
	if err != nil {
		return Result{Detail: err.Error()}
	}
	args = append(args, "-T")
	if !slices.Contains(t.Methods, KeyboardInteractive) {
		args = append(args, "-batch") // asks nothing
	}
	p := newProof(t.User)
	cmd := exec.Command("plink", append(args, s.Host, p.command)...)
	if cmd.Env, err = c.env("dumb"); err != nil {
		return Result{Detail: err.Error()}
	}
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

// Sight is what PuTTY's window shows a person ahead of a login.
type Sight struct {
	HostKey string // fingerprint that the person is asked about, SHA256:…; empty where nothing was asked
	Text    string // all that was shown, with "| " ahead of each line of the banner
}

// askedKey is where PuTTY names the key that it asks about. Its window breaks
// lines as the server's name is long.
var askedKey = regexp.MustCompile(`(?s)fingerprint is:.*?(SHA256:[A-Za-z0-9+/]{43})`)

// Look connects with a key, goes as far as the prompt for a code, and leaves. Of
// a server without host keys PuTTY asks whether its key is the right one, as it
// does of one that it has never seen, and is told to go on this once. The
// attempt counts against the rate limit.
func (c PuTTY) Look(ctx context.Context, s Server, user string, key *Key) (Sight, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	args, err := puttyArgs(ctx, s, user, key)
	if err != nil {
		return Sight{}, err
	}
	cmd := exec.Command("plink", append(args, s.Host)...)
	if cmd.Env, err = c.env("xterm"); err != nil {
		return Sight{}, err
	}
	window, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		return Sight{}, err
	}
	leave := func() {
		_ = cmd.Process.Kill()
		_ = window.Close()
	}
	defer func() { leave(); _ = cmd.Wait() }()
	defer context.AfterFunc(ctx, leave)()
	var sight Sight
	for buf := make([]byte, 4096); !strings.Contains(sight.Text, "Verification code: "); {
		n, err := window.Read(buf)
		sight.Text += string(buf[:n])
		if err != nil {
			return sight, fmt.Errorf("plink: %w: %s", errors.Join(ctx.Err(), err), lastWords(sight.Text))
		}
		if sight.HostKey != "" || !strings.Contains(sight.Text, "Store key in cache?") {
			continue
		}
		asked := askedKey.FindStringSubmatch(sight.Text)
		if len(s.HostKeys) > 0 || asked == nil {
			return sight, fmt.Errorf("plink: %w: %s", errHostKey, lastWords(sight.Text))
		}
		sight.HostKey = asked[1]
		if _, err := window.WriteString("n\r"); err != nil {
			return sight, err
		}
	}
	return sight, nil
}

// puttyArgs are those with which only the right server is spoken to, and nothing
// of this machine's user is used. With no host keys PuTTY asks.
func puttyArgs(ctx context.Context, s Server, user string, key *Key) ([]string, error) {
	args := []string{"-ssh", "-noagent", "-noshare", "-P", strconv.Itoa(s.Port), "-l", user}
	for _, line := range s.HostKeys {
		pub, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("host key %q: %w", line, err)
		}
		args = append(args, "-hostkey", ssh.FingerprintSHA256(pub))
	}
	if key == nil {
		return args, nil
	}
	ppk, err := key.PPK(ctx)
	return append(args, "-i", ppk), err
}

func (c PuTTY) env(term string) ([]string, error) {
	dir, err := filepath.Abs(c.Dir)
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "PUTTYDIR=" + dir, "TERM=" + term, "LC_ALL=C"}, err
}
