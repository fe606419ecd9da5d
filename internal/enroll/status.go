// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Status is what the agent knows of a machine, without secrets: what the last
// run found, and what delivery has done since.
type Status struct {
	Version       int            `json:"version"`
	Agent         string         `json:"agent"`
	Time          time.Time      `json:"time"` // of the last run
	InstanceID    string         `json:"instance_id,omitempty"`
	Identity      string         `json:"identity"` // where the identity comes from, or why it is unknown
	Users         []UserStatus   `json:"users"`
	RefusedLayers []RefusedLayer `json:"refused_layers,omitempty"`
	Remarks       []RefusedLayer `json:"remarks,omitempty"` // keys of a newer version, which this agent passed over
	Notice        string         `json:"notice,omitempty"`  // what console and SSH banner say
	NoticeCode    string         `json:"notice_code,omitempty"`
	Error         string         `json:"error,omitempty"`
	ErrorCode     string         `json:"error_code,omitempty"`
	Unknown       bool           `json:"identity_unknown,omitempty"`
	Clock         *target.Clock  `json:"clock,omitempty"` // now: codes depend on it
	Disk          *target.Space  `json:"disk,omitempty"`  // now: every login writes a file
	Problems      []Problem      `json:"problems"`        // what needs attention; status exits 1 for it
}

// UserStatus is one user's part.
type UserStatus struct {
	Name       string              `json:"name"`
	Enrolled   bool                `json:"enrolled"`
	ID         string              `json:"id,omitempty"`
	Generation int                 `json:"generation,omitempty"`
	Used       bool                `json:"used"` // a code has been accepted
	Why        string              `json:"why,omitempty"`
	Code       string              `json:"code,omitempty"`            // of the [Kind] that Why is about
	Remark     string              `json:"remark,omitempty"`          // of a channel that has too little room for the card
	From       string              `json:"recipients_from,omitempty"` // the layer that names the recipients
	Login      *LoginCheck         `json:"login,omitempty"`           // of an enrolled user
	Card       string              `json:"card,omitempty"`            // how far its delivery is: one of the words below
	Delivery   map[string]Delivery `json:"delivery,omitempty"`        // by channel
	RateLimit  *RateLimit          `json:"rate_limit,omitempty"`      // codes are refused now, or were in the last hour

	made  *made // in this run
	noWay bool  // no channel can carry the envelope, and it has not arrived
}

// How far the delivery of a card is.
const (
	CardWaiting     = "waiting"              // some channel is still to take it as the policy requires
	CardDelivered   = "delivered"            // confirmed by the channels, as the policy requires
	CardOffered     = "offered, unconfirmed" // it lies there, and nobody has logged in with a code yet
	CardUnconfirmed = "unconfirmed"          // it may have arrived, and no channel is left that could say so
	CardUsed        = "confirmed by a login" // nobody else has confirmed it
)

// Delivery is how far one channel is with a user's envelope.
type Delivery struct {
	State string    `json:"state"` // delivered, offered, failed, unconfirmed, tampered
	Tries int       `json:"tries"`
	Last  time.Time `json:"last,omitzero"`
	Next  time.Time `json:"next,omitzero"`
	Error string    `json:"error,omitempty"`
}

// RefusedLayer is a policy layer that asked for what it may not have.
type RefusedLayer struct {
	Layer string `json:"layer"`
	Error string `json:"error"`
}

// ErrNoRun is returned by Read when the agent has not run in this boot.
var ErrNoRun = errors.New("the agent has not run in this boot; run: totp-agent enroll (systemctl status totp-agent shows why it has not)")

// ReadStatus returns the status of a machine: the last run's, brought up to
// date from the PAM state files and the receipts.
func ReadStatus(ctx context.Context, t *target.Target) (*Status, error) {
	b, err := t.ReadFile(target.Status)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoRun
	}
	if err != nil {
		return nil, err
	}
	st := new(Status)
	if err := json.Unmarshal(b, st); err != nil {
		return nil, errors.New(target.Status + ": damaged; run totp-agent enroll")
	}
	clock := t.Clock()
	st.Clock = &clock
	if err := st.refresh(ctx, t); err != nil {
		// What cannot be brought up to date is still worth showing.
		st.Error = strings.TrimPrefix(st.Error+"; "+err.Error(), "; ")
		st.ErrorCode = or(st.ErrorCode, CodeEnrollFailed)
	}
	var disk error
	st.Disk, disk = diskState(t, false, io.Discard)
	st.Problems = st.problems(st.Disk, disk)
	return st, nil
}

// refresh brings the status up to date with what logins, resets and delivery
// have done since the run.
func (st *Status) refresh(ctx context.Context, t *target.Target) error {
	listed := map[string]bool{}
	for _, u := range st.Users {
		listed[u.Name] = true
	}
	entries, err := readDir(t, target.PAMStateDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !listed[e.Name()] && !strings.Contains(e.Name(), "~") {
			st.Users = append(st.Users, UserStatus{Name: e.Name()})
		}
	}
	watched := readWatch(t)
	box := deliver.OpenOutbox(t)
	p, _, _ := LoadPolicy(t) // what is wrong with it, the last run has said
	for i := range st.Users {
		u := &st.Users[i]
		if err := u.refresh(t, box); err != nil {
			return err
		}
		u.RateLimit = watched.of(t, u.Name, time.Now())
		if err := u.card(box, p); err != nil {
			return err
		}
	}
	if err := st.refreshLogins(ctx, t); err != nil {
		return err
	}
	usable := slices.ContainsFunc(st.Users, func(u UserStatus) bool { return u.Enrolled && u.Code == "" })
	switch {
	case !usable, st.Notice == "", isDisk(st.NoticeCode):
	case st.lockedOut(): // whatever it was, it is that now
		st.Notice, st.NoticeCode = kindOf(CodeCannotLogIn).Text(), CodeCannotLogIn
	default:
		st.Notice, st.NoticeCode = "", ""
	}
	if p == nil {
		return nil
	}
	return deliver.CheckFiles(p, t)
}

func (u *UserStatus) refresh(t *target.Target, box *deliver.Outbox) error {
	s, err := readState(t, u.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if u.Enrolled {
			u.Enrolled, u.Why, u.Code = false, stateFile(u.Name)+" is missing", CodeStateMissing
		}
		return nil
	case err != nil:
		u.Enrolled, u.Why, u.Code = false, err.Error(), CodeStateDamaged
		return nil
	}
	u.ID, u.Generation, u.Used = s.Mark.ID, s.Mark.Generation, s.Used
	if err := checkStateMode(t, u.Name); err != nil {
		u.Enrolled, u.Why, u.Code = false, err.Error(), CodeStateMode
		return nil
	}
	if u.ID == "" {
		u.Enrolled, u.Why, u.Code = true, "enrolled by hand, not by the agent", ""
		return nil
	}
	received, err := box.HasReceipt(u.ID)
	if err != nil {
		return err
	}
	switch whole := received || u.Used || t.Exists(target.Ready+"/"+u.ID) || t.Exists(target.Staged+"/"+u.ID); {
	case whole && !u.Enrolled:
		u.Enrolled, u.Why, u.Code = true, "", ""
	case !whole && u.Code != CodeCardLost:
		u.Enrolled, u.Why, u.Code = false, strings.TrimPrefix(u.Why+"; "+errCardLost.Error(), "; "), CodeCardLost
	}
	rec, err := box.Receipts(u.ID)
	if err != nil {
		return err
	}
	for name, a := range rec.Channels {
		if u.Delivery == nil {
			u.Delivery = map[string]Delivery{}
		}
		u.Delivery[name] = Delivery{State: a.State, Tries: a.Tries, Last: a.Last, Next: a.Next, Error: a.Error}
	}
	return nil
}

// card says how far the delivery is, under the policy of now.
func (u *UserStatus) card(box *deliver.Outbox, p *policy.Effective) error {
	if u.ID == "" || !u.Enrolled || p == nil {
		u.Card = ""
		return nil
	}
	receipt, err := box.Receipts(u.ID)
	if err != nil {
		return err
	}
	receipt.User = u.Name
	standing, err := box.Standing(p, receipt)
	if err != nil {
		return err
	}
	switch standing {
	case deliver.Delivered:
		u.Card = CardDelivered
	case deliver.Pending:
		u.Card = CardWaiting
	case deliver.Unconfirmed:
		u.Card = CardUnconfirmed
	case deliver.Offered:
		u.Card = CardOffered
	}
	if u.Used && (standing == deliver.Offered || standing == deliver.Unconfirmed) {
		u.Card = CardUsed
	}
	if standing != deliver.Pending {
		return nil
	}
	item := deliver.Item{Meta: deliver.Meta{ID: u.ID, User: u.Name}}
	if item.Sealed, err = box.Envelope(u.ID); err != nil {
		return nil // it has left the outbox
	}
	if item.Compact, err = box.Compact(u.ID); err != nil {
		return err
	}
	w, err := box.Ways(p, item)
	u.noWay = err == nil && len(w.Open) == 0
	return err
}

// isDisk reports whether the code is about the disk: enrolled users cannot log in either.
func isDisk(code string) bool {
	return code == CodeDiskFull || code == CodeDiskReadOnly || code == CodeFileAttributes
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// publish writes the status and the notice of a run.
func (r *run) publish(ctx context.Context, st *Status) error {
	r.notice(st)
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	if err := r.t.Mkdir(target.RunDir, 0o755); err != nil {
		return err
	}
	if err := r.t.WriteFile(target.Status, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return r.writeNotice(ctx, st.Notice)
}
