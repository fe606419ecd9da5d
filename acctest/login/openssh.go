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
	"strconv"
	"strings"
	"time"
)

// OpenSSH is ssh from PATH.
type OpenSSH struct {
	Dir string // for known_hosts files; must exist
}

// permissionDenied is how OpenSSH says that the server refused, with the methods
// it would have gone on with.
var permissionDenied = regexp.MustCompile(`Permission denied \(([a-z,-]*)\)\.`)

// Name returns "ssh".
func (OpenSSH) Name() string { return "ssh" }

// Login runs ssh on a terminal.
func (c OpenSSH) Login(ctx context.Context, s Server, t Try) Result {
	start := time.Now()
	known, err := c.knownHosts(s)
	if err != nil {
		return Result{Detail: err.Error()}
	}
	defer os.Remove(known)
	args := []string{
		"-F", "none", "-T", "-p", strconv.Itoa(s.Port), "-l", t.User,
		"-o", "UserKnownHostsFile=" + known, "-o", "GlobalKnownHostsFile=none",
		"-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no",
		"-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes",
		"-o", "ControlPath=none", "-o", "ConnectTimeout=60",
		"-o", "NumberOfPasswordPrompts=1",
		"-o", "PreferredAuthentications=" + strings.Join(t.Methods, ","),
	}
	if t.Key != nil {
		args = append(args, "-i", t.Key.File)
	} else {
		args = append(args, "-o", "IdentityFile=none", "-o", "PubkeyAuthentication=no")
	}
	p := newProof(t.User)
	cmd := exec.Command("ssh", append(args, "--", s.Host, p.command)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.Dir, "TERM=dumb", "LC_ALL=C"}
	d := converse(ctx, cmd, t.Answers)
	r := Result{Prompts: d.prompts, Took: time.Since(start)}
	denied := permissionDenied.FindAllStringSubmatch(d.text, -1)
	switch {
	case errors.Is(d.err, errHostKey), errors.Is(d.err, context.Canceled), errors.Is(d.err, context.DeadlineExceeded):
		r.Detail = d.err.Error()
	case d.err == nil && strings.Contains(d.text, p.output):
		r.Outcome = In
	case d.err != nil && len(denied) > 0:
		r.Outcome = Unasked
		if len(d.prompts) > 0 || errors.Is(d.err, errAsked) {
			r.Outcome = Refused
		}
		r.Remaining = strings.Split(denied[len(denied)-1][1], ",")
	default:
		r.Detail = fmt.Sprintf("%s (%v)", lastWords(d.text), d.err)
	}
	r.Banner = banner(d.text)
	return r
}

// knownHosts writes the server's keys where no other attempt looks.
func (c OpenSSH) knownHosts(s Server) (string, error) {
	f, err := os.CreateTemp(c.Dir, "known_hosts-")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, key := range s.HostKeys {
		if _, err := fmt.Fprintf(f, "[%s]:%d %s\n", s.Host, s.Port, key); err != nil {
			return "", err
		}
	}
	if s.Port == 22 {
		for _, key := range s.HostKeys {
			if _, err := fmt.Fprintf(f, "%s %s\n", s.Host, key); err != nil {
				return "", err
			}
		}
	}
	return filepath.Abs(f.Name())
}

// banner returns what came before the first prompt or refusal.
func banner(text string) string {
	if i := strings.Index(text, "erification code"); i >= 0 {
		text = text[:strings.LastIndexAny(text[:i], "\r\n")+1]
	}
	if i := permissionDenied.FindStringIndex(text); i != nil {
		text = text[:strings.LastIndexAny(text[:i[0]], "\r\n")+1]
	}
	return strings.TrimSpace(strings.ReplaceAll(text, "\r", ""))
}
