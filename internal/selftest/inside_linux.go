// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

var errNotInside = errors.New("this is a part of the self-test that it starts itself; run: totp-agent selftest")

// Inside is what the command of [Options.Self] calls: the first process of new
// namespaces, which [Run] tells what to do. It refuses to be anything else, since
// it would change the machine that it runs on.
func Inside(r io.Reader, w io.Writer) error {
	if os.Getpid() != 1 || os.Getppid() != 0 {
		return errNotInside
	}
	var o order
	if err := json.NewDecoder(r).Decode(&o); err != nil {
		return errNotInside
	}
	// The first process of a PID namespace takes all others along.
	go func() { _, _ = io.Copy(io.Discard, r); os.Exit(1) }()
	t := &tester{enc: json.NewEncoder(w), sshd: o.Policy.WithDefaults().SSHD, policy: *o.Policy.WithDefaults()}
	if err := t.run(); err != nil {
		return t.enc.Encode(message{Error: t.hide(err.Error())})
	}
	return t.enc.Encode(message{Done: true})
}

// parallel is how many lanes run at a time: with sshd's own MaxStartups of 10,
// and two connections' worth of work for each core of a small machine.
const parallel = 4

// tester is one run, inside.
type tester struct {
	policy policy.Policy
	sshd   policy.SSHD
	scene  *scene
	people *people
	full   *server // as the unit starts it
	bare   *server // without the unit's options

	mu  sync.Mutex
	enc *json.Encoder
}

func (t *tester) run() error {
	var err error
	if t.scene, err = setScene(); err != nil {
		return err
	}
	if err := t.stateDirectory(); err != nil {
		return err
	}
	configured := make(chan error, 1)
	go func() { configured <- t.pamService() }()
	started, err := t.prepare()
	if err != nil {
		return err
	}
	if started {
		if err := t.matrix(); err != nil {
			return err
		}
	}
	return <-configured
}

// stateDirectory looks at what a login cannot show: root reads and writes a
// directory of anybody's, and its owner could put in secrets of his own.
func (t *tester) stateDirectory() error {
	start, want := time.Now(), "directory, root:root, 0700"
	seen := "missing"
	if fi, err := os.Lstat(target.PAMStateDir); err == nil {
		kind := "directory"
		if !fi.IsDir() {
			kind = "no directory"
		}
		uid, gid, _ := target.Owner(fi)
		owner := fmt.Sprintf("%d:%d", uid, gid)
		if owner == "0:0" {
			owner = "root:root"
		}
		seen = fmt.Sprintf("%s, %s, %04o", kind, owner, fi.Mode().Perm())
	}
	return t.row(0, "state directory", "root", want, seen, start, nil)
}

// pamService looks at lines that a login need not show: a second way to
// authenticate that nothing leads to today.
func (t *tester) pamService() error {
	start := time.Now()
	m, err := target.Open("/")
	if err != nil {
		return err
	}
	defer m.Close()
	findings, err := bake.Check(context.Background(), m)
	if err != nil {
		return err
	}
	seen, log := []string(nil), []string(nil)
	for _, f := range findings {
		if strings.HasPrefix(f.ID, "pam-") && f.Severity == bake.Critical {
			seen, log = append(seen, f.ID), append(log, fmt.Sprintf("%s: %s; %s", f.Path, f.What, f.Fix))
		}
	}
	return t.row(1, "PAM service", "root", "as baked", cmp.Or(strings.Join(seen, ", "), "as baked"), start, log)
}

// prepare makes accounts and starts both servers. What sshd says against that is
// a row.
func (t *tester) prepare() (bool, error) {
	start, want := time.Now(), "starts, with options of the unit and without"
	failed := func(err error, log []string) (bool, error) {
		return false, t.row(2, "sshd", "root", want, err.Error(), start, log)
	}
	options, err := unitOptions()
	if errors.Is(err, bake.ErrUnit) {
		return failed(err, nil)
	}
	if err != nil {
		return false, err
	}
	if len(options) == 0 {
		return failed(errors.New("the unit of sshd gives it none of the agent's options"), nil)
	}
	keyOptions, hostKeys, err := hostKeys()
	if err != nil {
		return false, err
	}
	// What the image's files say about throw-away users.
	db, err := readUserDB()
	if err != nil {
		return false, err
	}
	prefix, err := db.prefix()
	if err != nil {
		return false, err
	}
	said, err := settings(slices.Concat(keyOptions, options), prefix+roleCode)
	if err != nil {
		return failed(err, nil)
	}
	p, err := newPeople(db, prefix, t.policy, said)
	if err != nil {
		return false, err
	}
	t.people = p
	p.hostKeys = hostKeys
	common := slices.Concat(keyOptions, p.options)
	t.full, err = startServer(2222, slices.Concat(common, options))
	if err == nil {
		t.bare, err = startServer(2223, common)
	}
	if errors.Is(err, errSSHD) {
		log := t.scene.log.since(0, "")
		for _, s := range []*server{t.full, t.bare} {
			if s != nil {
				log = append(log, s.log.since(0, "")...)
			}
		}
		return failed(err, log)
	}
	if err != nil {
		return false, err
	}
	return true, t.row(2, "sshd", "root", want, want, start, nil)
}

// matrix runs all rows.
func (t *tester) matrix() error {
	all := slices.Concat(lanes, exemptions(t.sshd))
	room := make(chan struct{}, parallel)
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	row := 0
	for i, lane := range all {
		first := row
		row += len(lane)
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			for j, trial := range lane {
				if trial.needed != nil && !trial.needed(t.sshd) || trial.role == roleRoot && t.people.listed {
					continue
				}
				if err := t.try(trial, first+j); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// rowLimit is how long a login may take.
const rowLimit = 50 * time.Second

// try is one row. Each comes from an address of its own, because sshd counts the
// failures of an address (PerSourcePenalties, since OpenSSH 9.8).
func (t *tester) try(r trial, number int) error {
	who, err := t.people.by(r.role)
	if err != nil {
		return err
	}
	from, err := t.people.source(number, r.from)
	if err != nil {
		return err
	}
	s := t.full
	if r.bare {
		s = t.bare
	}
	start := time.Now()
	a := attempt{
		addr: s.addr(from.IP.To4() == nil), from: from, user: who.name, steps: r.steps,
		key: t.people.key, password: t.people.password, hostKeys: t.people.hostKeys,
		code: func() (string, error) { return who.answer(r.code, t.people.password, time.Now()) },
	}
	sshdLines, pamLines := s.log.size(), t.scene.log.size()
	seen := a.do(rowLimit)
	var log []string
	if seen != r.expect {
		time.Sleep(200 * time.Millisecond) // the last lines are on their way
		words := []string{who.name, from.IP.String() + " "}
		log = slices.Concat(s.log.since(sshdLines, words...), t.scene.log.since(pamLines, words...))
		if len(log) == 0 {
			log = slices.Concat(s.log.since(sshdLines, ""), t.scene.log.since(pamLines, ""))
		}
	}
	return t.row(firstTrial+number, r.name, who.name, r.expect, seen, start, log)
}

// firstTrial is the place of the first login among the rows.
const firstTrial = 3

// row hands out a row, which has its place among all.
func (t *tester) row(number int, name, user, expected, seen string, start time.Time, log []string) error {
	for i, line := range log {
		log[i] = t.hide(line)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.enc.Encode(message{Number: number, Row: &Row{
		SelfTestRow: bake.SelfTestRow{Name: name, User: user, Expected: expected, Seen: t.hide(seen), OK: seen == expected},
		Millis:      time.Since(start).Milliseconds(),
		Log:         log,
	}})
}

// hide takes out what nobody is to read, throw-away or not.
func (t *tester) hide(s string) string {
	if t.people == nil {
		return s
	}
	for _, secret := range t.people.secrets() {
		s = strings.ReplaceAll(s, secret, "(secret)")
	}
	return s
}
