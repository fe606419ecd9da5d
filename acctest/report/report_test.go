// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package report

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSteps(t *testing.T) {
	var b strings.Builder
	now := time.Unix(0, 0)
	r := New(&b)
	r.now = func() time.Time { now = now.Add(70 * time.Second); return now }
	r.start = now
	broken := errors.New("broken")
	if err := r.Step("make it", func() error { r.Sayf("two\nlines\n"); return nil }); err != nil {
		t.Error(err)
	}
	if err := r.Step("break it", func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	want := "\n1. make it  [at 1:10]\n   two\n   lines\n   done in 1:10 min\n" +
		"\n2. break it  [at 4:40]\n   failed after 1:10 min\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestBusySaysSoUntilStopped(t *testing.T) {
	b := &buffer{}
	r := New(b)
	r.now = func() time.Time { return r.start }
	r.every = time.Millisecond
	said := make(chan struct{}, 1000)
	stop := r.Busy("boot", func() string {
		said <- struct{}{}
		return "\x1b[0mstarted\r" + strings.Repeat("é", 100)
	})
	<-said
	<-said // by now the first line is written
	stop()
	stop()
	text := b.String()
	if !strings.Contains(text, "… boot, 0.0 s: [0mstarted"+strings.Repeat("é", 50)) || strings.ContainsAny(text, "\x1b\r") {
		t.Errorf("got %q", text)
	}
	time.Sleep(10 * time.Millisecond)
	if b.String() != text {
		t.Error("it goes on after stop")
	}
}

func TestLines(t *testing.T) {
	var b strings.Builder
	w := New(&b).Lines("packer: ")
	for _, part := range []string{"one", "\ntwo\r\n\nthr", "ee\nfour"} {
		fmt.Fprint(w, part)
	}
	if want := "   packer: one\n   packer: two\n   packer: three\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
