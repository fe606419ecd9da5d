// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// The steps that write. Each says what it changed.

func (b *baker) directories(context.Context) (string, error) {
	for _, d := range b.plan.dirs {
		if err := b.journal.mkdir(d.path, d.mode); err != nil {
			return "", err
		}
	}
	// What a power cut left of an earlier bake or enrollment.
	swept := map[string]bool{}
	for _, p := range b.plan.paths() {
		if dir := path.Dir(p); !swept[dir] && b.t.IsDir(dir) {
			swept[dir] = true
			if err := b.t.Sweep(dir); err != nil {
				return "", err
			}
		}
	}
	return "ready", nil
}

// paths are all files that bake writes.
func (p *plan) paths() []string {
	paths := []string{target.AgentPath, target.ImagePolicy, target.PAMService, target.PAMCopy, target.SSHDConfig, target.Report}
	for _, f := range p.files {
		paths = append(paths, f.path)
	}
	return paths
}

// checkAgent tells whether the agent's program runs on this machine.
func (b *baker) checkAgent() error {
	f, err := os.Open(b.Agent)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAgent, err)
	}
	defer f.Close()
	arch, err := target.ELFArch(b.Agent, f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAgent, err)
	}
	if arch != b.facts.arch {
		return fmt.Errorf("%s: built for %s, the system is %s: %w; bake with the agent for %s",
			b.Agent, arch, b.facts.arch, ErrAgent, b.facts.arch)
	}
	return nil
}

const agentMode = 0o755

func (b *baker) agent(context.Context) (string, error) {
	f, err := os.Open(b.Agent)
	if err != nil {
		return "", err
	}
	defer f.Close()
	want, err := hash(f)
	if err != nil {
		return "", err
	}
	if fi, err := b.t.Lstat(target.AgentPath); err == nil && fi.Mode().IsRegular() && fi.Mode().Perm() == agentMode && owned(fi) {
		if now, err := hashFile(b.t, target.AgentPath); err == nil && now == want {
			return target.AgentPath + " unchanged", nil
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return target.AgentPath + " written", b.journal.writeFrom(target.AgentPath, f, agentMode)
}

func (b *baker) policy(context.Context) (string, error) {
	// The canonical text ends with a mark, so that a file that was cut short is
	// never taken for a whole one.
	text, err := b.Policy.Marshal()
	if err != nil {
		return "", err
	}
	changed, err := b.journal.write(target.ImagePolicy, text, 0o600)
	return target.ImagePolicy + said(changed) + once(b.Policy), err
}

func (b *baker) pam(context.Context) (string, error) {
	now, want, remark, err := b.facts.pamWanted(b.t, false)
	if err != nil {
		return "", err
	}
	changed := !pamOK(b.t, now, want)
	if changed {
		mode := pamFileMode(b.t)
		if err := b.journal.displace(target.PAMService); err != nil {
			return "", err
		}
		if _, err := b.journal.write(target.PAMService, []byte(want), mode); err != nil {
			return "", err
		}
	}
	if remark != "" {
		remark = "; " + remark
	}
	if err := b.journal.displace(target.PAMCopy); err != nil {
		return "", err
	}
	if b.t.Live() { // a boot makes it by tmpfiles.d(5)
		if err := b.journal.mkdir(target.PAMTallyDir, tallyMode); err != nil {
			return "", err
		}
	}
	_, err = b.journal.write(target.PAMCopy, []byte(want), pamMode)
	return target.PAMService + said(changed) + remark, err
}

func (b *baker) sshd(context.Context) (string, error) {
	return b.write(false)
}

func (b *baker) units(ctx context.Context) (string, error) {
	for _, name := range b.plan.gone {
		if err := b.journal.remove(name); err != nil {
			return "", err
		}
	}
	text, err := b.write(true)
	if err != nil {
		return "", err
	}
	if _, err := b.journal.write(target.LoginSums, b.facts.loginSums(b.plan), 0o600); err != nil {
		return "", err
	}
	changed := 0
	sockets, err := b.facts.socketLinks(b.t)
	if err != nil {
		return "", err
	}
	for _, l := range sockets { // before the mask: what requires it would not start
		if err := b.journal.unlink(l); err != nil {
			return "", err
		}
	}
	for _, l := range b.plan.links {
		if l.stands(b.t) {
			continue
		}
		did, err := b.journal.symlink(l.dest, l.path)
		if err != nil {
			return "", err
		}
		if did {
			changed++
		}
	}
	text += fmt.Sprintf(", %d of %d links made", changed, len(b.plan.links))
	if len(sockets) > 0 {
		text += ", removed " + strings.Join(sockets, ", ")
	}
	// A systemd that runs does not see new units by itself. sshd is not
	// restarted: the session that bakes goes on.
	if b.t.Booted() {
		_, err = b.t.Run(ctx, target.Systemctl, "daemon-reload")
	}
	return text, err
}

// stands tells whether a unit is enabled, by a link of whatever destination,
// or masked.
func (l link) stands(t *target.Target) bool {
	dest, err := t.Readlink(l.path)
	return err == nil && (dest == l.dest || l.dest != "/dev/null")
}

func (b *baker) write(units bool) (string, error) {
	changed, all := 0, 0
	for _, f := range b.plan.files {
		if f.unit != units {
			continue
		}
		all++
		did, err := b.journal.write(f.path, f.data, f.mode)
		if err != nil {
			return "", err
		}
		if did {
			changed++
		}
	}
	return fmt.Sprintf("%d of %d files written", changed, all), nil
}

func said(changed bool) string {
	if changed {
		return " written"
	}
	return " unchanged"
}

func hashFile(t *target.Target, name string) (string, error) {
	f, err := t.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return hash(f)
}

func hash(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
