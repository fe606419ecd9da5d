// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package frame_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

const id = "abcdefgh234567ijklmnopqrsu"

func Example() {
	msg, _ := frame.Marshal(id, "alice", []byte("-----BEGIN AGE ENCRYPTED FILE-----\n"))
	fmt.Printf("%s", msg)
	fmt.Printf("%s", frame.Err(frame.WordAge))
	// Output:
	//
	// TOTP-ENVELOPE 1 abcdefgh234567ijklmnopqrsu alice 35
	// -----BEGIN AGE ENCRYPTED FILE-----
	// ERR age
}

func TestParseHeader(t *testing.T) {
	whole := frame.Header{ID: id, User: "alice", Length: 12}
	for _, tt := range []struct {
		line string
		want frame.Header
		err  error
	}{
		{"TOTP-ENVELOPE 1 " + id + " alice 12\n", whole, nil},
		{"TOTP-ENVELOPE 1 " + id + " alice 12\r\n", whole, nil},
		{"TOTP-ENVELOPE 1 " + id + " alice 12", whole, nil},
		{"TOTP-ENVELOPE 1 " + id + " alice 65536", frame.Header{ID: id, User: "alice", Length: 65536}, nil},
		{"TOTP-ENVELOPE 1 " + id + " alice 65537", frame.Header{ID: id, User: "alice"}, frame.ErrSize},
		{"TOTP-ENVELOPE 1 " + id + " alice 0", frame.Header{ID: id, User: "alice"}, frame.ErrSize},
		{"TOTP-ENVELOPE 1 " + id + " alice 012", frame.Header{ID: id, User: "alice"}, frame.ErrSize},
		{"TOTP-ENVELOPE 1 " + id + " alice 99999999999999999999", frame.Header{ID: id, User: "alice"}, frame.ErrSize},
		{"TOTP-ENVELOPE 1 " + id + " alice -1", frame.Header{}, frame.ErrHeader},
		{"TOTP-ENVELOPE 1 " + id + " alice +1", frame.Header{}, frame.ErrHeader},
		{"TOTP-ENVELOPE 1 " + id + " alice", frame.Header{}, frame.ErrHeader},
		{"TOTP-ENVELOPE 1 " + id + " alice 12 ", frame.Header{}, frame.ErrHeader},
		{"TOTP-ENVELOPE 2 " + id + " alice 12", frame.Header{}, frame.ErrHeader},
		{"TOTP-ENVELOPE  1 " + id + " alice 12", frame.Header{}, frame.ErrHeader},
		{" TOTP-ENVELOPE 1 " + id + " alice 12", frame.Header{}, frame.ErrHeader},
		{"", frame.Header{}, frame.ErrHeader},
		{"TOTP-ENVELOPE 1 " + strings.ToUpper(id) + " alice 12", frame.Header{}, frame.ErrID},
		{"TOTP-ENVELOPE 1 " + id[1:] + " alice 12", frame.Header{}, frame.ErrID},
		{"TOTP-ENVELOPE 1 " + id + "a alice 12", frame.Header{}, frame.ErrID},
		{"TOTP-ENVELOPE 1 ../../../../../../../../etc alice 12", frame.Header{}, frame.ErrID},
		{"TOTP-ENVELOPE 1 " + id + " .. 12", frame.Header{}, frame.ErrUser},
		{"TOTP-ENVELOPE 1 " + id + " a/b 12", frame.Header{}, frame.ErrUser},
		{"TOTP-ENVELOPE 1 " + id + " -a 12", frame.Header{}, frame.ErrUser},
		{"TOTP-ENVELOPE 1 " + id + " a:b 12", frame.Header{}, frame.ErrUser},
		{"TOTP-ENVELOPE 1 " + id + "  12", frame.Header{}, frame.ErrUser},
		{"TOTP-ENVELOPE 1 " + id + " " + strings.Repeat("a", 33) + " 12", frame.Header{}, frame.ErrUser},
	} {
		got, err := frame.ParseHeader(tt.line)
		if got != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%q: got %+v, %v; want %+v, %v", tt.line, got, err, tt.want, tt.err)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	payload := []byte("payload\n")
	ok := frame.OK(payload)
	sum := strings.TrimSpace(ok[3:])
	if len(sum) != 64 {
		t.Fatalf("hash %q", sum)
	}
	for _, tt := range []struct {
		line string
		want string
		err  error
	}{
		{ok, sum, nil},
		{strings.Replace(ok, "\n", "\r\n", 1), sum, nil},
		{frame.Err(frame.WordExists), "", frame.ErrRefused},
		{"OK", "", frame.ErrAnswer},
		{"OK " + sum[1:], "", frame.ErrAnswer},
		{"OK " + strings.ToUpper(sum), "", frame.ErrAnswer},
		{"OK " + sum + " ", "", frame.ErrAnswer},
		{" OK " + sum, "", frame.ErrAnswer},
		{"ERR", "", frame.ErrAnswer},
		{"ERR \x1b[2J", "", frame.ErrAnswer},
		{"ERR two words", "", frame.ErrAnswer},
		{"", "", frame.ErrAnswer},
	} {
		got, err := frame.ParseAnswer(tt.line)
		if got != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%q: got %q, %v; want %q, %v", tt.line, got, err, tt.want, tt.err)
		}
	}
}

// The empty line ahead ends what was cut short.
func TestMarshal(t *testing.T) {
	got, err := frame.Marshal(id, "alice", []byte("a\n"))
	if want := "\nTOTP-ENVELOPE 1 " + id + " alice 2\na\n"; string(got) != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestMarshalErrors(t *testing.T) {
	for _, tt := range []struct {
		id, user, payload string
		want              error
	}{
		{"x", "alice", "a\n", frame.ErrID},
		{id, "A", "a\n", frame.ErrUser},
		{id, "alice", "", frame.ErrSize},
		{id, "alice", "a", frame.ErrSize}, // no newline at the end
		{id, "alice", strings.Repeat("a", frame.MaxPayload) + "\n", frame.ErrSize},
	} {
		if _, err := frame.Marshal(tt.id, tt.user, []byte(tt.payload)); !errors.Is(err, tt.want) {
			t.Errorf("%q %q: got %v, want %v", tt.id, tt.user, err, tt.want)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add("TOTP-ENVELOPE 1 " + id + " alice 12\n")
	f.Add("TOTP-ENVELOPE 1 " + id + " alice 99999999999999999999")
	f.Fuzz(func(t *testing.T, line string) {
		h, err := frame.ParseHeader(line)
		if err != nil {
			return
		}
		again, err := frame.ParseHeader(h.String())
		if err != nil || again != h {
			t.Errorf("%+v: %+v, %v", h, again, err)
		}
		if frame.CheckID(h.ID) != nil || frame.CheckUser(h.User) != nil || h.Length < 1 || h.Length > frame.MaxPayload {
			t.Errorf("%+v", h)
		}
	})
}

func BenchmarkParseHeader(b *testing.B) {
	line := frame.Header{ID: id, User: "alice", Length: 1000}.String()
	for b.Loop() {
		frame.ParseHeader(line)
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(frame.OK([]byte("x")))
	f.Add(frame.Err(frame.WordSize))
	f.Add("ERR \x1b[2J\r\n")
	f.Fuzz(func(t *testing.T, line string) {
		sum, err := frame.ParseAnswer(line)
		switch {
		case err == nil:
			if b, e := hex.DecodeString(sum); e != nil || len(b) != 32 {
				t.Errorf("%q: sum %q", line, sum)
			}
		case !errors.Is(err, frame.ErrRefused) && !errors.Is(err, frame.ErrAnswer):
			t.Errorf("%q: %v", line, err)
		case len(err.Error()) > 200 || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }):
			t.Errorf("%q: the error repeats what a terminal must not get: %q", line, err)
		}
	})
}
