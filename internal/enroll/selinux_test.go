// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

var errRefused = errors.New("exit status 1")

// selinux makes the machine one of the RHEL family, whose commands fail as named.
func (m *machine) selinux(fails ...string) *targettest.Recorder {
	r := new(targettest.Recorder)
	r.Handle = func(argv []string) targettest.Answer {
		if slices.Contains(fails, argv[0]) {
			return targettest.Answer{Stderr: "Permission denied", Err: errRefused}
		}
		return targettest.Answer{}
	}
	m.t.SetRunner(r)
	m.put(target.SELinuxEnforce, "1")
	for _, program := range []string{target.Restorecon, target.Chcon} {
		targettest.Put(m.T, m.t, "/usr/bin/"+program, "", 0o755)
	}
	return r
}

const (
	labelDir    = "restorecon -R " + target.PAMStateDir
	labelNotice = "chcon -t sshd_var_run_t " + target.Notice + " " + target.NoticeConf
)

// The directory of the secrets is labelled where the agent makes it, and the
// notice wherever it is shown.
func TestSELinux(t *testing.T) {
	m := newMachine(t)
	r := m.selinux()
	m.mustRun()
	if got := r.Calls(); !slices.Equal(got, []string{labelDir}) {
		t.Errorf("ran %q", got)
	}
	m.mustRun()
	if got := r.Calls(); len(got) != 1 {
		t.Errorf("the second boot ran %q", got[1:])
	}

	m = newMachine(t)
	m.layer("version: 1\n")
	r = m.selinux()
	if st := m.mustRun(); st.Notice == "" || !m.t.Exists(target.NoticeConf) {
		t.Fatal("no notice")
	}
	if got := r.Calls(); !slices.Equal(got, []string{labelDir, labelNotice}) {
		t.Errorf("ran %q", got)
	}
}

// Elsewhere nothing is run.
func TestNoSELinux(t *testing.T) {
	m := newMachine(t)
	r := new(targettest.Recorder)
	m.t.SetRunner(r)
	m.layer("version: 1\n")
	m.mustRun()
	if got := r.Calls(); got != nil {
		t.Errorf("ran %q", got)
	}
}

// A directory that sshd may not write in is not kept for the next boot.
func TestSELinuxNoLabel(t *testing.T) {
	m := newMachine(t)
	m.selinux(target.Restorecon)
	if _, err := m.run(); !errors.Is(err, errRefused) || m.t.Exists(target.PAMStateDir) {
		t.Errorf("%v; the directory is there: %v", err, m.t.Exists(target.PAMStateDir))
	}
	m.selinux()
	m.mustRun()
	m.enrolled("alice")
}

// sshd does not start where it may not read what it includes.
func TestSELinuxNoBanner(t *testing.T) {
	m := newMachine(t)
	m.layer("version: 1\n")
	m.selinux(target.Chcon)
	m.mustRun()
	if m.t.Exists(target.NoticeConf) || !m.t.Exists(target.Notice) || !strings.Contains(m.log.String(), "no banner in sshd") {
		t.Errorf("conf %v, notice %v, log %s", m.t.Exists(target.NoticeConf), m.t.Exists(target.Notice), &m.log)
	}
}
