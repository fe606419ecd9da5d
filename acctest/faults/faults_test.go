// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux && amd64

package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperEnv makes the test's own binary the program that is traced.
const helperEnv = "TOTP_FAULTS_HELPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		if err := helper(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper writes a file durably, one step in a thread of its own each, runs another
// program and then itself, and prints a word.
func helper(dir string) error {
	if os.Getenv("TOTP_FAULTS_CHILD") != "" {
		return os.Mkdir(filepath.Join(dir, "child"), 0o700)
	}
	if os.Getenv("TOTP_FAULTS_SLEEP") != "" {
		time.Sleep(time.Hour)
	}
	var file *os.File
	temporary, final := filepath.Join(dir, "temporary"), filepath.Join(dir, "final")
	steps := []func() error{
		func() (err error) {
			file, err = os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			return err
		},
		func() error { _, err := file.WriteString("ten bytes."); return err },
		func() error { return file.Sync() },
		func() error { return errors.Join(file.Close(), os.Rename(temporary, final)) },
		func() error { return exec.Command("touch", filepath.Join(dir, "foreign")).Run() },
		func() error {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "TOTP_FAULTS_CHILD=1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return err
		},
		func() error { _, err := fmt.Println("done"); return err },
	}
	for i, step := range steps {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and end the thread
			done <- step()
		}()
		if err := <-done; err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func runHelper(t *testing.T, f *Fault, env ...string) (string, *Result) {
	t.Helper()
	dir := t.TempDir()
	res, err := Run(t.Context(), command(t, dir, env...), ".test", f)
	if err != nil {
		t.Fatal(err)
	}
	return dir, res
}

func command(t *testing.T, dir string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(exe, ".test") {
		t.Skipf("the test binary %s has an unknown name; run it by go test", exe)
	}
	// The shell is what the lab's commands are wrapped in.
	cmd := exec.Command("sh", "-c", `"$0"; exit $?`, exe)
	cmd.Env = append([]string{helperEnv + "=" + dir}, env...)
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"))
	return cmd
}

func names(dir string) (all []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// wantCalls are the helper's, in its order; another program's are not among them.
var wantCalls = []string{"openat temporary", "write temporary", "fsync temporary", "renameat final", "mkdirat child", "write stdout"}

func TestFaultRunnerListsTheCallsOfAllThreads(t *testing.T) {
	t.Parallel()
	for range 3 {
		dir, res := runHelper(t, nil)
		var got []string
		for i, c := range res.Calls {
			if c.Number != i+1 {
				t.Errorf("call %d has the number %d", i+1, c.Number)
			}
			got = append(got, c.Name+" "+strings.TrimPrefix(c.Path, dir+"/"))
		}
		if !slices.Equal(got, wantCalls) {
			t.Errorf("calls %q, want %q", got, wantCalls)
		}
		if res.Exit != 0 || res.Out != "done\n" || res.Err != "" {
			t.Errorf("exit %d, out %q, err %q", res.Exit, res.Out, res.Err)
		}
		if got := names(dir); !slices.Equal(got, []string{"child", "final", "foreign"}) {
			t.Errorf("left %q", got)
		}
	}
}

func TestFaultRunnerInjects(t *testing.T) {
	t.Parallel()
	const open, write, sync, rename, mkdir, out = 1, 2, 3, 4, 5, 6
	for _, tt := range []struct {
		fault   Fault
		left    string // names in the directory
		content string // of the temporary file, where it is left
		err     string // in what the program says; empty: it was killed
	}{
		{Fault{open, KillBefore, 0}, "", "", ""},
		{Fault{open, KillAfter, 0}, "temporary", "", ""},
		{Fault{write, KillBefore, 0}, "temporary", "", ""},
		{Fault{write, Half, 0}, "temporary", "ten b", ""},
		{Fault{write, KillAfter, 0}, "temporary", "ten bytes.", ""},
		{Fault{sync, KillBefore, 0}, "temporary", "ten bytes.", ""},
		{Fault{rename, KillBefore, 0}, "temporary", "ten bytes.", ""},
		{Fault{rename, KillAfter, 0}, "final", "", ""},
		{Fault{mkdir, KillBefore, 0}, "final foreign", "", ""},
		{Fault{mkdir, KillAfter, 0}, "child final foreign", "", ""},
		{Fault{out, KillBefore, 0}, "child final foreign", "", ""},
		{Fault{open, Fail, unix.EMFILE}, "", "", "too many open files"},
		{Fault{write, Fail, unix.ENOSPC}, "temporary", "", "no space left"},
		{Fault{write, Short, 0}, "temporary", "ten b", "no space left"},
		{Fault{sync, Fail, unix.EIO}, "temporary", "ten bytes.", "input/output error"},
		{Fault{rename, Fail, unix.EROFS}, "temporary", "ten bytes.", "read-only"},
		{Fault{mkdir, Fail, unix.EACCES}, "final foreign", "", "permission denied"},
		{Fault{out, Fail, unix.ENOSPC}, "child final foreign", "", "no space left"},
		// The write is in order, and what comes next and needs room is not.
		{Fault{open, FailFrom, unix.ENOSPC}, "", "", "step 0: open"},
	} {
		t.Run(fmt.Sprintf("%s %s", tt.fault, wantCalls[tt.fault.Call-1]), func(t *testing.T) {
			t.Parallel()
			dir, res := runHelper(t, &tt.fault)
			if got := strings.Join(names(dir), " "); got != tt.left {
				t.Errorf("left %q, want %q", got, tt.left)
			}
			if data, _ := os.ReadFile(filepath.Join(dir, "temporary")); string(data) != tt.content {
				t.Errorf("the file holds %q, want %q", data, tt.content)
			}
			if at := res.At.Name; !strings.HasPrefix(wantCalls[tt.fault.Call-1], at+" ") || at == "" {
				t.Errorf("hit %q, want %q", at, wantCalls[tt.fault.Call-1])
			}
			switch {
			case tt.err == "" && (res.Exit == 0 || res.Out+strings.TrimSpace(strings.ReplaceAll(res.Err, "Killed", "")) != ""):
				t.Errorf("killed: exit %d, out %q, err %q", res.Exit, res.Out, res.Err)
			case tt.err != "" && (res.Exit != 1 || !strings.Contains(res.Err, tt.err)):
				t.Errorf("exit %d, err %q, want %q", res.Exit, res.Err, tt.err)
			}
		})
	}
}

// An error from then on meets the calls that can end with it, and only those.
func TestFaultRunnerFailsFromThenOn(t *testing.T) {
	at := Call{Number: 2, Name: "openat", Path: "/a", nature: opens}
	for _, tt := range []struct {
		call Call
		err  unix.Errno
		want bool
	}{
		{Call{Number: 1, Name: "openat", Path: "/a", nature: opens}, unix.EROFS, false},
		{Call{Number: 2, Name: "openat", Path: "/a", nature: opens}, unix.EROFS, true},
		{Call{Number: 3, Name: "unlinkat", Path: "/a", nature: change}, unix.EROFS, true},
		{Call{Number: 3, Name: "unlinkat", Path: "/a", nature: change}, unix.ENOSPC, false},
		{Call{Number: 3, Name: "fsync", Path: "/a", nature: adjust}, unix.EROFS, false},
		{Call{Number: 3, Name: "fsync", Path: "/a", nature: adjust}, unix.EIO, true},
		{Call{Number: 3, Name: "write", Path: stdout, nature: write}, unix.EIO, false},
		{Call{Number: 3, Name: "mkdirat", Path: "/a", nature: create}, unix.EMFILE, false},
	} {
		if got := (Fault{2, FailFrom, tt.err}).errno(at, tt.call) != 0; got != tt.want {
			t.Errorf("%d %v, %v: failed %v, want %v", tt.call.Number, tt.call, tt.err, got, tt.want)
		}
		if got := (Fault{2, Fail, tt.err}).errno(at, tt.call) != 0; got != (tt.call.Number == 2) {
			t.Errorf("once: %d %v, %v: failed %v", tt.call.Number, tt.call, tt.err, got)
		}
	}
}

func TestFaultRunnerMissesAfterTheLastCall(t *testing.T) {
	t.Parallel()
	_, res := runHelper(t, &Fault{99, KillBefore, 0})
	if res.At.Name != "" || res.Exit != 0 || len(res.Calls) != len(wantCalls) {
		t.Errorf("hit %q, exit %d, %d calls", res.At, res.Exit, len(res.Calls))
	}
}

func TestFaultRunnerEndsWhatHangs(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, command(t, t.TempDir(), "TOTP_FAULTS_SLEEP=1"), ".test", nil); !errors.Is(err, ErrTimeout) {
		t.Errorf("error %v, want %v", err, ErrTimeout)
	}
}

// A call is to be listed with at least its two kills, and a write with its halves.
func TestFaultsOfACall(t *testing.T) {
	for _, tt := range []struct {
		call Call
		want int
	}{
		{Call{Number: 7, Size: 2, nature: write}, 8},
		{Call{Number: 7, Size: 1, nature: write}, 6},
		{Call{Number: 7, nature: opens}, 12},
		{Call{Number: 7, nature: create}, 10},
		{Call{Number: 7, nature: change}, 8},
		{Call{Number: 7, nature: adjust}, 4},
	} {
		all := tt.call.Faults()
		if len(all) != tt.want {
			t.Errorf("%+v: %d faults %v, want %d", tt.call, len(all), all, tt.want)
		}
		for _, f := range all {
			if f.Call != 7 {
				t.Errorf("%v is at call %d", f, f.Call)
			}
		}
	}
}

// Children that other goroutines have started on a thread are not waited for.
func TestFaultRunnerLeavesOtherChildren(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	for range 50 { // on as many threads as there are
		go func() {
			cmd := exec.Command("sh", "-c", "exec 2>/dev/null; sleep 3; exit 7")
			if err := cmd.Run(); cmd.ProcessState.ExitCode() != 7 {
				t.Errorf("another child: %v", err)
			}
			done <- struct{}{}
		}()
	}
	time.Sleep(500 * time.Millisecond)
	start := time.Now()
	for range 10 {
		if _, res := runHelper(t, nil); res.Exit != 0 {
			t.Errorf("exit %d", res.Exit)
		}
	}
	t.Log(time.Since(start))
	for range 50 {
		<-done
	}
}
