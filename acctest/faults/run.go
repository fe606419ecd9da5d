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
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrTimeout is returned by [Run] for a command that was killed since it took too long.
var ErrTimeout = errors.New("the command takes too long")

// A Result is how a command ran.
type Result struct {
	Calls    []Call // all up to the command's end
	At       Call   // the call that the fault hit; zero: the program ended before it
	Exit     int    // exit status of the command; -1 where a signal ended it
	Out, Err string
}

// Run runs a command and makes the fault happen, or none if f is nil. program is the end
// of the name of the program's file: calls of other programs that the command starts are
// neither counted nor failed. All processes of the command have ended when Run returns.
// The fields Path, Args, Env and Dir of cmd are used.
func Run(ctx context.Context, cmd *exec.Cmd, program string, f *Fault) (*Result, error) {
	if cmd.Err != nil {
		return nil, cmd.Err
	}
	var res *Result
	var err error
	onOwnThread(func() { res, err = run(ctx, cmd, program, f) })
	return res, err
}

// onOwnThread runs f on a thread that has no children and ends with it. The kernel knows a
// tracer and its children by their thread: what other goroutines have started on this one
// would be waited for, too. What f leaves traced is killed with the thread.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if data, err := os.ReadFile("/proc/thread-self/children"); err == nil && len(data) > 0 {
			onOwnThread(f) // on another one, as this one is taken
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

func run(ctx context.Context, cmd *exec.Cmd, program string, f *Fault) (*Result, error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	files = append(files, null)
	for range 2 {
		file, err := os.CreateTemp("", "totp-faults-")
		if err != nil {
			return nil, err
		}
		files = append(files, file)
		if err := os.Remove(file.Name()); err != nil {
			return nil, err
		}
	}
	attr := &syscall.ProcAttr{Dir: cmd.Dir, Env: cmd.Env, Sys: &syscall.SysProcAttr{Ptrace: true, Setsid: true}}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	pid, err := syscall.ForkExec(cmd.Path, cmd.Args, attr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Path, err)
	}
	t := &tracer{pid: pid, program: program, fault: f, tasks: map[int]*task{}}
	if err := t.start(); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		return nil, err
	}
	if err := t.loop(ctx); err != nil {
		return nil, err
	}
	res := &t.Result
	for i, text := range []*string{&res.Out, &res.Err} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", files[i+1].Fd()))
		if err != nil {
			return nil, err
		}
		*text = string(data)
	}
	return res, nil
}

// A task is a thread that is traced.
type task struct {
	process int
	counted bool // it runs the program
	started bool // it has had its first stop

	call   Call // the state-changing call that it is in, if any
	result unix.Errno
	action *Action // what follows at the end of the call
}

type tracer struct {
	Result
	pid     int // of the command
	program string
	fault   *Fault
	tasks   map[int]*task
	killed  bool
	last    int // number of the last call
}

const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
	unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL

// start takes the command over, which has stopped after its exec.
func (t *tracer) start() error {
	var ws unix.WaitStatus
	if _, err := wait(t.pid, &ws, 0); err != nil {
		return err
	}
	if !ws.Stopped() {
		return fmt.Errorf("the command ended before it was traced: status %#x", ws)
	}
	if err := unix.PtraceSetOptions(t.pid, options); err != nil {
		return fmt.Errorf("ptrace: %w", err)
	}
	first := &task{process: t.pid, started: true}
	t.tasks[t.pid] = first
	t.exec(t.pid, first)
	t.resume(t.pid, first, 0)
	return nil
}

// wait is wait4 for what this thread traces. The children of other threads, which os/exec
// waits for, stay theirs.
func wait(pid int, ws *unix.WaitStatus, flags int) (int, error) {
	for {
		got, err := unix.Wait4(pid, ws, unix.WALL|unix.WNOTHREAD|flags, nil)
		if !errors.Is(err, unix.EINTR) {
			return got, err
		}
	}
}

func (t *tracer) loop(ctx context.Context) error {
	// A blocked wait is woken by the end of the command.
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(-t.pid, unix.SIGKILL) })
	defer stop()
	for {
		var ws unix.WaitStatus
		pid, err := wait(-1, &ws, 0)
		if errors.Is(err, unix.ECHILD) {
			if ctx.Err() != nil {
				return fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
			}
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			t.kill()
		}
		switch {
		case ws.Exited() || ws.Signaled():
			t.ended(pid, ws)
		case ws.Stopped():
			t.stopped(pid, ws)
		}
	}
}

func (t *tracer) ended(pid int, ws unix.WaitStatus) {
	delete(t.tasks, pid)
	if pid != t.pid {
		return
	}
	t.Exit = ws.ExitStatus()
	if ws.Signaled() {
		t.Exit = -1
	}
	t.kill() // what a command leaves running
}

// kill ends everything that the command has started, and not the command that it was
// started by, which has an exit status to tell.
func (t *tracer) kill() {
	for _, task := range t.tasks {
		if task.process != t.pid || task.counted {
			_ = unix.Kill(task.process, unix.SIGKILL)
		}
	}
}

func (t *tracer) stopped(pid int, ws unix.WaitStatus) {
	k := t.tasks[pid]
	if k == nil { // its first stop comes before its parent's report
		k = t.newTask(pid)
	}
	deliver := 0
	switch sig := ws.StopSignal(); {
	case sig == unix.SIGTRAP|0x80:
		t.syscall(pid, k)
	case sig == unix.SIGTRAP && ws.TrapCause() > 0:
		t.event(pid, k, ws.TrapCause())
	case sig == unix.SIGSTOP && !k.started:
		k.started = true
	default:
		deliver = int(sig)
	}
	t.resume(pid, k, deliver)
}

func (t *tracer) resume(pid int, k *task, sig int) {
	// A task that is killed meanwhile is gone for ptrace; its end is reported.
	if k.counted {
		_ = unix.PtraceSyscall(pid, sig)
	} else {
		_ = unix.PtraceCont(pid, sig)
	}
}

// newTask notes a thread or process. One that was forked is not counted until it
// executes the program: until then it is between fork and exec.
func (t *tracer) newTask(pid int) *task {
	k := &task{process: processOf(pid)}
	if leader := t.tasks[k.process]; leader != nil && k.process != pid {
		k.counted = leader.counted
	}
	t.tasks[pid] = k
	return k
}

func (t *tracer) event(pid int, k *task, cause int) {
	switch cause {
	case unix.PTRACE_EVENT_CLONE, unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK:
		msg, err := unix.PtraceGetEventMsg(pid)
		if err == nil && t.tasks[int(msg)] == nil {
			t.newTask(int(msg))
		}
	case unix.PTRACE_EVENT_EXEC:
		// The thread that executes becomes the process's first; the others are gone.
		for other, o := range t.tasks {
			if o.process == k.process && other != pid {
				delete(t.tasks, other)
			}
		}
		k.call, k.action, k.result = Call{}, nil, 0
		t.exec(pid, k)
	}
}

func (t *tracer) exec(pid int, k *task) {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	k.counted = err == nil && strings.HasSuffix(exe, t.program)
}

func processOf(pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return pid
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "Tgid:"); ok {
			var id int
			if _, err := fmt.Sscan(value, &id); err == nil {
				return id
			}
		}
	}
	return pid
}

func (t *tracer) syscall(pid int, k *task) {
	info, err := syscallInfo(pid)
	if err != nil {
		return
	}
	switch info.Op {
	case opEntry:
		t.enter(pid, k, info.nr(), info.args())
	case opExit:
		t.leave(pid, k)
	}
}

func (t *tracer) enter(pid int, k *task, nr uint64, args [6]uint64) {
	k.call, k.action, k.result = Call{}, nil, 0
	kind, ok := syscalls[nr]
	if !ok || t.killed {
		return
	}
	c, ok := describe(pid, kind, args)
	if !ok {
		return
	}
	t.last++
	c.Number = t.last
	t.Calls = append(t.Calls, c)
	k.call = c
	if t.fault == nil {
		return
	}
	if c.Number == t.fault.Call {
		t.At = c
		switch t.fault.Action {
		case KillBefore:
			skip(pid)
			t.die()
		case Half, Short:
			shorten(pid, c)
			k.action = &t.fault.Action
		case KillAfter:
			k.action = &t.fault.Action
		}
	}
	if errno := t.fault.errno(t.At, c); errno != 0 {
		k.result = errno
		skip(pid)
	}
}

func (t *tracer) leave(pid int, k *task) {
	if k.result != 0 {
		setResult(pid, k.result)
	}
	if k.action != nil {
		switch *k.action {
		case KillAfter, Half:
			t.die()
		case Short:
			restore(pid, k.call)
		}
	}
	k.call, k.action, k.result = Call{}, nil, 0
}

func (t *tracer) die() {
	t.killed = true
	t.kill()
}

// describe tells what a call changes; false: nothing on a disk.
func describe(pid int, k syscallKind, args [6]uint64) (Call, bool) {
	c := Call{Name: k.name, nature: k.nature, sizeArg: k.size}
	if k.nature == opens && !changes(pid, k, args) {
		return c, false
	}
	if k.size >= 0 {
		c.original = args[k.size]
		c.Size = int(args[k.size])
	}
	switch {
	case k.fd >= 0 && args[k.fd] == 1:
		c.Path = stdout
		return c, true
	case k.fd >= 0 && args[k.fd] == 2:
		return c, false
	case k.fd >= 0:
		c.Path = descriptor(pid, int32(args[k.fd]))
	case k.name2 >= 0:
		c.Path = resolve(pid, k.dir2, k.name2, args)
	default:
		c.Path = resolve(pid, k.dir, k.name1, args)
	}
	return c, onDisk(c.Path)
}

// changes reports whether an open creates or truncates.
func changes(pid int, k syscallKind, args [6]uint64) bool {
	const changing = unix.O_CREAT | unix.O_TRUNC
	flags := uint64(changing) // creat
	switch k.name {
	case "open":
		flags = args[1]
	case "openat":
		flags = args[2]
	case "openat2": // struct open_how begins with the flags
		how := peek(pid, args[2], 4)
		flags = 0
		for i, b := range how {
			flags |= uint64(b) << (8 * i)
		}
	}
	return flags&changing != 0
}

func resolve(pid, dir, name int, args [6]uint64) string {
	file := string(peek(pid, args[name], 4096))
	file, _, _ = strings.Cut(file, "\x00")
	if filepath.IsAbs(file) {
		return filepath.Clean(file)
	}
	base := int32(unix.AT_FDCWD)
	if dir >= 0 {
		base = int32(args[dir])
	}
	return filepath.Join(descriptor(pid, base), file)
}

// descriptor returns the name of an open file, as the process sees it.
func descriptor(pid int, fd int32) string {
	link := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
	if fd == unix.AT_FDCWD {
		link = fmt.Sprintf("/proc/%d/cwd", pid)
	}
	name, err := os.Readlink(link)
	if err != nil {
		return ""
	}
	name = strings.TrimSuffix(name, " (deleted)")
	root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", pid))
	if err == nil && root != "/" && name != root {
		name = strings.TrimPrefix(name, root)
	}
	return name
}

// Timeout returns a context for one run of a command.
func Timeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 5*time.Minute)
}
