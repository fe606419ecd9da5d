// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

func newTicketFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "alice.ticket")
	text, err := seal.Ticket{Users: []seal.TicketUser{{Name: "alice", Token: seal.HashToken("x")}}}.Marshal()
	check(t, err)
	check(t, os.WriteFile(name, text, 0o600))
	return name
}

// hold takes the lock of a file or directory until release is called.
func hold(t *testing.T, name string) (release func()) {
	t.Helper()
	f, err := os.Open(name)
	check(t, err)
	check(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	return func() { f.Close() }
}

// TestTicketLockOfDirectory: everybody can lock /tmp, and must not be able to hold
// a ticket that lies there.
func TestTicketLockOfDirectory(t *testing.T) {
	name := newTicketFile(t)
	release := hold(t, filepath.Dir(name))
	defer release()
	opened := make(chan error, 1)
	go func() {
		f, err := openTicket(name)
		if err == nil {
			f.close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		check(t, err)
	case <-time.After(time.Minute):
		t.Fatal("waits for whoever has the directory")
	}
}

// TestTicketLockWaits: who waits is told for what.
func TestTicketLockWaits(t *testing.T) {
	name := newTicketFile(t)
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	check(t, err)
	defer said.Close()
	old := os.Stderr
	os.Stderr = said
	defer func() { os.Stderr = old }()
	release := hold(t, name)
	go func() {
		defer release()
		var text []byte
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if text, _ = os.ReadFile(said.Name()); strings.Contains(string(text), "waiting: another program has the ticket") {
				return
			}
		}
		t.Errorf("said %q", text)
	}()
	f, err := openTicket(name)
	check(t, err)
	f.close()
}

// TestTicketLockReplaced: each of many that replace the file adds to what the one
// before it wrote.
func TestTicketLockReplaced(t *testing.T) {
	name := newTicketFile(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			f, err := openTicket(name)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.close()
			next := f.ticket
			next.Users = append(next.Users, seal.TicketUser{Name: fmt.Sprint("user", i), Token: seal.HashToken("x")})
			if err := f.store(next); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	f, err := openTicket(name)
	check(t, err)
	defer f.close()
	if n := len(f.ticket.Users); n != 9 {
		t.Errorf("%d users, want 9", n)
	}
}

// TestTicketNotRewritten: what was accepted before needs no writing.
func TestTicketNotRewritten(t *testing.T) {
	name := newTicketFile(t)
	before, err := os.Stat(name)
	check(t, err)
	f, err := openTicket(name)
	check(t, err)
	defer f.close()
	check(t, f.store(f.ticket))
	if after, err := os.Stat(name); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced: %v", err)
	}
}
