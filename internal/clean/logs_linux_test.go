// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestLogsRace: daemons own directories in /var/log, and can put a link in a log's
// place after it was looked at. What the link leads to stays as it is.
func TestLogsRace(t *testing.T) {
	tt := newImage(t, map[string]string{"/var/log/app/log": "x", "/etc/precious": "kept"})
	log := filepath.Join(tt.Root(), "var/log/app/log")
	next := filepath.Join(tt.Root(), "next")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if errors.Join(os.Symlink("/etc/precious", next), os.Rename(next, log), os.WriteFile(next, []byte("x"), 0o600), os.Rename(next, log)) != nil {
				panic("cannot swap the log")
			}
		}
	}()
	c := &cleaner{t: tt}
	var err error
	for i := 0; i < 2000 && err == nil; i++ {
		err = c.logs()
	}
	close(stop)
	<-stopped
	if err != nil {
		t.Error(err)
	}
	if b, err := tt.ReadFile("/etc/precious"); string(b) != "kept" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	// And a log that is one is emptied.
	if err := os.WriteFile(log, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.logs(); err != nil {
		t.Error(err)
	}
	if b, err := tt.ReadFile("/var/log/app/log"); len(b) != 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
