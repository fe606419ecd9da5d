// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
)

// toNova returns an openstack channel that leads to n.
func toNova(n *Nova) *openstack { return &openstack{dial: n.dial} }

func small() Item {
	i := item()
	i.Compact = sealed(500)
	return i
}

// One POST to where OpenStack's documentation has it, of base64 on one line, with
// a length, to the address itself and to no proxy.
func TestOpenStack(t *testing.T) {
	n := NewNova(t)
	must(t, toNova(n).Send(t.Context(), small()))
	if want := base64.StdEncoding.EncodeToString(small().Compact); n.Password() != want {
		t.Errorf("kept %q, want %q", n.Password(), want)
	}
	if len(n.got) != 1 {
		t.Fatalf("%d requests", len(n.got))
	}
	if r := n.got[0]; r.Method != "POST" || r.Host != "169.254.169.254" || r.RequestURI != "/openstack/latest/password" || r.ContentLength < 1 {
		t.Errorf("%s %s of %s, %d bytes", r.Method, r.RequestURI, r.Host, r.ContentLength)
	}
}

func TestOpenStackAnswers(t *testing.T) {
	for _, tt := range []struct {
		code    int
		want    error
		unclear bool
	}{
		{200, nil, false}, {202, nil, false},
		{301, ErrStatus, false}, {307, ErrStatus, false},
		{400, ErrStatus, false}, {401, ErrStatus, false}, {403, ErrStatus, false}, {404, errNoPassword, false}, {405, ErrStatus, false}, {429, ErrStatus, false},
		{408, ErrStatus, true}, {500, ErrStatus, true}, {503, ErrStatus, true},
	} {
		n := NewNova(t)
		n.Before(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://"+n.Addr()+"/elsewhere")
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(tt.code)
		})
		err := toNova(n).Send(t.Context(), small())
		if !errors.Is(err, tt.want) || maySent(err) != tt.unclear || errors.Is(err, ErrTaken) {
			t.Errorf("%d: %v, may be sent %v", tt.code, err, maySent(err))
		}
		if len(n.got) != 1 {
			t.Errorf("%d: %d requests", tt.code, len(n.got))
		}
		if err != nil && wish(err) != 2*time.Hour {
			t.Errorf("%d: pause of %v", tt.code, wish(err))
		}
	}
}

// What cannot go there is not tried.
func TestOpenStackNoRoom(t *testing.T) {
	n := NewNova(t)
	large := item()
	large.Compact = sealed(policy.CompactRoom)
	for name, i := range map[string]Item{"no compact form": item(), "too large": large} {
		if err := toNova(n).Send(t.Context(), i); !errors.Is(err, errNoCompact) || maySent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(n.got) != 0 {
		t.Errorf("%d requests", len(n.got))
	}
}

// The place is taken once. Whose text is there, is looked at; where that cannot
// be seen, an attempt of our own before makes the difference.
func TestOpenStackTaken(t *testing.T) {
	own := base64.StdEncoding.EncodeToString(small().Compact)
	for _, tt := range []struct {
		name  string
		tried bool   // an attempt before, whose answer was lost
		there string // what is there at the next one
		old   bool   // and it is not shown
		want  string
		last  string // after Unconfirmed, when it is shown
	}{
		{"ours", true, own, false, Delivered, ""},
		{"ours, in a file's form", true, own + "\n", false, Delivered, ""},
		{"somebody else's", false, "cGxhbnRlZA==", false, Tampered, ""},
		{"somebody else's, over ours", true, "cGxhbnRlZA==", false, Tampered, ""},
		{"somebody's", false, "cGxhbnRlZA==", true, Tampered, ""},
		{"ours, likely", true, own, true, Unconfirmed, Delivered},
		{"somebody else's, in the end", true, "cGxhbnRlZA==", true, Unconfirmed, Tampered},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := NewNova(t)
			n.old = tt.old
			other := offered("other")
			m := newMachine(t, policy.RequireAny, other)
			m.e.Jitter = "0s"
			must(t, m.box.Stage(meta(aliceID, "alice"), sealed(3000), small().Compact))
			must(t, m.box.Promote(aliceID))
			o := m.options()
			o.routes = append([]route{{Channel: toNova(n), deadline: time.Minute, network: true, compact: true, one: true}}, o.routes...)
			pass := func() Attempt {
				if _, err := Run(t.Context(), m.tg, &m.e, o); err != nil {
					t.Fatal(err)
				}
				m.clock = m.clock.Add(2 * longestPause)
				return m.attempt(aliceID, policy.ChannelOpenStack)
			}
			if tt.tried {
				n.After(func(w http.ResponseWriter, _ *http.Request) {
					c, _, err := w.(http.Hijacker).Hijack()
					must(t, err)
					c.Close()
				})
				if a := pass(); a.State != Failed || !a.Unclear {
					t.Errorf("the lost answer: %+v", a)
				}
				n.After(nil)
			}
			n.password = tt.there
			a := pass()
			if a.State != tt.want {
				t.Errorf("%+v, want %s", a, tt.want)
			}
			if n.Password() != tt.there {
				t.Error("overwritten")
			}
			if !slices.Equal(other.got, []string{aliceID}) {
				t.Errorf("the other channel got %q", other.got)
			}
			if strings.Contains(m.log.String()+a.Error, "cGxhbnRlZA") || strings.Contains(m.log.String()+a.Error, own[:20]) {
				t.Errorf("what is there is in the log or the record:\n%s%s", m.log.String(), a.Error)
			}
			if tt.want == Unconfirmed {
				n.undecided(t, tt.there, tt.last, pass)
				return
			}
			// The owner clears it.
			n.password, n.old = "", false
			if a, want := pass(), tt.want; want == Tampered && a.State != Delivered {
				t.Errorf("cleared: %+v", a)
			}
		})
	}
}

// undecided: what is there is looked at again, as long as that tells nothing, and
// never overwritten.
func (n *Nova) undecided(t *testing.T, there, last string, pass func() Attempt) {
	t.Helper()
	n.got = nil
	expect := func(when, want string) {
		t.Helper()
		if a := pass(); a.State != want || a.Unclear != (want != Delivered) || a.Next.IsZero() != (want == Delivered) {
			t.Errorf("%s: %+v, want %s", when, a, want)
		}
	}
	expect("from memory", Unconfirmed)
	n.Before(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	expect("out of service", Unconfirmed)
	n.Before(nil)
	n.password, n.old = "", false
	expect("cleared by the owner, maybe", Unconfirmed)
	n.password = there
	expect("shown", last)
	for _, r := range n.got {
		if r.Method != http.MethodGet {
			t.Errorf("a %s", r.Method)
		}
	}
	if len(n.got) != 4 {
		t.Errorf("looked %d times", len(n.got))
	}
}

// Two users, and one place: the first one's card goes there, and the other has
// the other ways.
func TestOpenStackTwoUsers(t *testing.T) {
	n := NewNova(t)
	m := newMachine(t, policy.RequireAny, offered("other"))
	m.e.Jitter = "0s"
	for id, user := range map[string]string{aliceID: "alice", bobID: "bob"} {
		must(t, m.box.Stage(meta(id, user), sealed(3000), small().Compact))
		must(t, m.box.Promote(id))
	}
	o := m.options()
	o.routes = append(o.routes, route{Channel: toNova(n), deadline: time.Minute, network: true, compact: true, one: true})
	s, err := Run(t.Context(), m.tg, &m.e, o)
	if err != nil || s.Delivered != 1 || s.Offered != 1 || s.Pending != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if len(n.got) != 1 {
		t.Errorf("%d requests", len(n.got))
	}
}
