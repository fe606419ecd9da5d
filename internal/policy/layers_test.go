// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// Every key of a policy has a row in the table, and every row has a key.
func TestLayerRulesAreComplete(t *testing.T) {
	var keys []string
	for _, k := range keysOf(reflect.TypeFor[Policy]()) {
		if k != "" {
			keys = append(keys, k)
		}
	}
	for _, k := range keysOf(reflect.TypeFor[User]()) {
		keys = append(keys, "users[]."+k)
	}
	seen := map[string]bool{}
	for _, r := range layerRules {
		if seen[r.key] {
			t.Errorf("%s has two rows", r.key)
		}
		seen[r.key] = true
		if !slices.Contains(keys, r.key) {
			t.Errorf("%s is no key", r.key)
		}
	}
	for _, k := range keys {
		if !seen[k] {
			t.Errorf("%s has no row", k)
		}
	}

	// given must know every key as well, or a layer could set it unseen.
	all := Policy{1, "a", "a", users(age1), []string{"a"}, []string{"a"}, 1, "a", "a", []Channel{{Type: "file"}}, "a", "a", SSHD{Algorithms: "a"}, "a", "a", "a", true, true, Clean{"a"}, "a", "", nil}
	got := all.given()
	for _, k := range keys {
		if !strings.HasPrefix(k, "users[]") && !slices.Contains(got, k) {
			t.Errorf("given does not know %s", k)
		}
	}
	if got := new(Policy).given(); got != nil {
		t.Errorf("nothing gives %q", got)
	}
}

// The table, key by key, by what a layer can do in fact.
func TestLayers(t *testing.T) {
	image := "version: 1\nissuer: Below\nenroll: listed\nbackup_codes: 5\nrate_limit: standard\nrequire: any\n" +
		"users: [{name: alice, recipients: [" + age1 + "]}]\nescrow_recipients: [" + age3 + "]\nchannels: [{type: file}]\npackages: present\n"
	stricter := strings.NewReplacer("standard", "strict", "any", "all", "listed", "auto").Replace(image)
	anywhere := image + "recipients_from: [image, vendor, instance]\n"
	nowhere := image + "recipients_from: [image]\n"

	both := []Layer{Vendor, Instance}
	for _, tt := range []struct {
		name, image string
		layers      []Layer
		doc         string
		refused     []want // nil: it holds
		holds       func(e *Effective) bool
	}{
		{"version", image, both, "", nil, func(e *Effective) bool { return e.Version == 1 }},
		{"issuer is replaced", image, both, "issuer: Above\n", nil, func(e *Effective) bool { return e.Issuer == "Above" }},
		{"backup_codes is replaced, upwards", image, both, "backup_codes: 10\n", nil, func(e *Effective) bool { return e.BackupCodes == 10 }},
		{"backup_codes is replaced, downwards", image, both, "backup_codes: 1\n", nil, func(e *Effective) bool { return e.BackupCodes == 1 }},
		{"enroll adds people", image, both, "enroll: auto\n", nil, func(e *Effective) bool { return e.Enroll == "auto" }},
		{"enroll takes nobody away", stricter, both, "enroll: listed\n", []want{{"enroll", 2, 9, ErrTakesAway}}, nil},
		{"enroll says the same", image, both, "enroll: listed\n", nil, func(e *Effective) bool { return e.Enroll == "listed" }},

		{"users are added", nowhere, both, "users: [{name: bob}]\n", nil, func(e *Effective) bool { return e.Listed("alice") && e.Listed("bob") && e.OriginOf("bob") == "" }},
		{"users are added with recipients", anywhere, both, "users: [{name: bob, recipients: [" + age2 + "]}]\n", nil,
			func(e *Effective) bool { return recipientsOf(e, "bob") == age2 && recipientsOf(e, "alice") == age1 }},
		{"recipients are replaced", anywhere, both, "users: [{name: alice, recipients: [" + age2 + "]}]\n", nil,
			func(e *Effective) bool { return recipientsOf(e, "alice") == age2 && len(e.Users) == 1 }},
		{"recipients stay where none are given", anywhere, both, "users: [{name: alice}]\n", nil,
			func(e *Effective) bool { return recipientsOf(e, "alice") == age1 && e.OriginOf("alice") == Image }},
		{"recipients of a layer that may name none", nowhere, both, "users:\n  - name: bob\n  - name: alice\n    recipients: [" + age2 + "]\n",
			[]want{{"users[1].recipients", 5, 17, ErrRecipientsFrom}}, nil},
		{"recipients of a new user in a layer that may name none", nowhere, both, "users: [{name: bob, recipients: [" + age2 + "]}]\n",
			[]want{{"users[0].recipients", 2, 33, ErrRecipientsFrom}}, nil},

		{"escrow_recipients, vendor", image, both[:1], "escrow_recipients: [" + age2 + "]\n", []want{{"escrow_recipients", 2, 20, ErrNotInLayer}}, nil},
		{"escrow_recipients, instance", image, both[1:], "escrow_recipients: [" + age2 + ", " + age3 + "]\n", nil,
			func(e *Effective) bool { return slices.Equal(e.EscrowRecipients, []string{age3, age2}) }},

		{"recipients_from", image, both, "recipients_from: [instance]\n", []want{{"recipients_from", 2, 18, ErrNotInLayer}}, nil},
		{"rate_limit is tightened", image, both, "rate_limit: strict\n", nil, func(e *Effective) bool { return e.RateLimit == "strict" }},
		{"rate_limit is loosened", stricter, both, "rate_limit: standard\n", []want{{"rate_limit", 2, 13, ErrLoosens}}, nil},
		{"rate_limit stays", stricter, both, "rate_limit: strict\n", nil, func(e *Effective) bool { return e.RateLimit == "strict" }},
		{"require is tightened", image, both, "require: all\n", nil, func(e *Effective) bool { return e.Require == "all" }},
		{"require is loosened", stricter, both, "require: any\n", []want{{"require", 2, 10, ErrLoosens}}, nil},

		{"channels are added", image, both, "channels: [{type: virtio, port: a}, {type: file}]\n", nil,
			func(e *Effective) bool {
				return reflect.DeepEqual(e.Channels, []Channel{{Type: "file"}, {Type: "virtio", Port: "a"}})
			}},
		{"channels are added to the defaults", "version: 1\n", both, "channels: [{type: virtio, port: a}, {type: virtio}]\n", nil,
			func(e *Effective) bool {
				return reflect.DeepEqual(e.Channels, []Channel{{Type: "virtio", Port: DefaultPort}, {Type: "console"}, {Type: "file"}, {Type: "virtio", Port: "a"}})
			}},
		{"an http channel is added with its credentials", image, both, "channels: [{type: http, url: \"https://u:p@h/{id}?k=v\", headers: {X-Token: a}, hmac_key: 0123456789abcdef, client_cert: /c, client_key: /k}]\n", nil,
			func(e *Effective) bool {
				return len(e.Channels) == 2 && e.Channels[1].HMACKey == "0123456789abcdef" && e.Channels[1].Method == "PUT"
			}},
		{"an http channel is not changed", "version: 1\nchannels: [{type: http, url: \"https://h/{id}\"}]\n", both, "channels: [{type: http, url: \"https://h/{id}\", success: [200]}]\n", []want{{"channels[0]", 2, 12, ErrDuplicate}}, nil},
		{"a banner over classic recipients", image, both, "channels: [{type: ssh-banner}]\n", []want{{"channels[0].recipients", 2, 12, ErrClassicBanner}}, nil},
		{"a banner for all over classic recipients", image, both, "channels: [{type: ssh-banner, recipients: any}]\n", nil, func(e *Effective) bool { return e.Channels[1].Recipients == BannerAny }},
		{"classic recipients over a banner", "version: 1\nchannels: [{type: ssh-banner}]\n", both, "users:\n  - {name: bob, recipients: [" + age1 + "]}\n", []want{{"users[0].recipients[0]", 3, 30, ErrClassicBanner}}, nil},
		{"post-quantum recipients over a banner", "version: 1\nchannels: [{type: ssh-banner}]\n", both, "users: [{name: bob, recipients: [" + hybrid1 + "]}]\n", nil, func(e *Effective) bool { return recipientsOf(e, "bob") == hybrid1 }},
		{"a banner is not loosened", "version: 1\nchannels: [{type: ssh-banner}]\n", both, "channels: [{type: ssh-banner, recipients: any}]\n", []want{{"channels[0]", 2, 12, ErrDuplicate}}, nil},
		{"openstack over a post-quantum recipient", image, both, "channels: [{type: openstack}]\nusers: [{name: bob, recipients: [" + age2 + "]}]\n", nil, func(e *Effective) bool {
			own, _ := e.RecipientsOf("bob")
			return e.Misfit("bob", own) == nil && e.WantsCompact("bob") && e.Channels[1].TakesOne()
		}},
		{"a post-quantum recipient over openstack", "version: 1\nchannels: [{type: file}, {type: openstack, user: bob}]\n", both, "users: [{name: bob, recipients: [" + hybrid1 + "]}]\n", nil, func(e *Effective) bool {
			own, _ := e.RecipientsOf("bob")
			err := e.Misfit("bob", own)
			return err != nil && errors.Is(err, ErrNoRoom) && err.Path == "channels[1]" && strings.Contains(err.Error(), own[0].Short()) && strings.Contains(err.Error(), "openstack") &&
				e.Misfit("alice", own) == nil && !e.WantsCompact("alice")
		}},
		{"jitter is replaced", image, both, "jitter: 1m\n", nil, func(e *Effective) bool { return e.JitterTime() == time.Minute && e.KeepTime() == 30*day }},
		{"keep is replaced", image, both, "keep: 1d\n", nil, func(e *Effective) bool { return e.KeepTime() == day && e.JitterTime() == 5*time.Second }},
		{"packages", image, both, "packages: present\n", []want{{"packages", 2, 11, ErrNotInLayer}}, nil},
		{"cloud_init_module", image, both, "cloud_init_module: true\n", []want{{"cloud_init_module", 2, 20, ErrNotInLayer}}, nil},
		{"cloud_init_module_listed", image, both, "cloud_init_module_listed: true\n", []want{{"cloud_init_module_listed", 2, 27, ErrNotInLayer}}, nil},
		{"sshd", image, both, "sshd: {exempt_groups: [ops]}\n", []want{{"sshd", 2, 7, ErrNotInLayer}}, nil},
		{"sshd, strict", image, both, "sshd: {algorithms: strict}\n", []want{{"sshd", 2, 7, ErrNotInLayer}}, nil},
		{"time_sync", image, both, "time_sync: none\n", []want{{"time_sync", 2, 12, ErrNotInLayer}}, nil},
		{"firewall", image, both, "firewall: none\n", []want{{"firewall", 2, 11, ErrNotInLayer}}, nil},
		{"clean", image, both, "clean: {build_user: packer}\n", []want{{"clean", 2, 8, ErrNotInLayer}}, nil},
		{"token, vendor", image, both[:1], "token: " + token + "\n", []want{{"token", 2, 8, ErrNotInLayer}}, nil},
		{"token, instance", image, both[1:], "token: " + token + "\n", nil, func(e *Effective) bool { return e.Token == token }},

		{"another class", anywhere, both, "users:\n  - name: bob\n  - {name: carol, recipients: [" + hybrid1 + "]}\n", []want{{"users[1].recipients[0]", 4, 32, seal.ErrMixedClasses}}, nil},
		{"another class in place of the only other", "version: 1\nusers: [{name: alice, recipients: [" + age1 + "]}]\n", both, "users: [{name: alice, recipients: [" + hybrid1 + "]}]\n", nil,
			func(e *Effective) bool { return recipientsOf(e, "alice") == hybrid1 }},
		{"another class of escrow", anywhere, both[1:], "escrow_recipients: [" + hybrid1 + "]\n", []want{{"escrow_recipients[0]", 2, 21, seal.ErrMixedClasses}}, nil},
		{"post-quantum beside login keys", "version: 1\nrecipients_from: [vendor, instance, authorized_keys]\n", both, "users: [{name: alice, recipients: [" + hybrid1 + "]}]\n",
			[]want{{"users[0].recipients[0]", 2, 36, seal.ErrMixedClasses}}, nil},

		{"refused as a whole", stricter, both, "issuer: Above\nbackup_codes: 9\nusers: [{name: bob}]\nchannels: [{type: console}]\nrate_limit: standard\nrequire: any\n",
			[]want{{"rate_limit", 6, 13, ErrLoosens}, {"require", 7, 10, ErrLoosens}}, nil},
		{"malformed", image, both, "issuer: Above\nissuer: Again\n", []want{{"issuer", 3, 1, ErrDuplicateKey}}, nil},
		{"not text", image, both, "\x00", []want{{"", 2, 1, ErrControl}}, nil},
	} {
		for _, layer := range tt.layers {
			t.Run(tt.name+"/"+string(layer), func(t *testing.T) {
				texts := map[Layer][]byte{layer: []byte("version: 1\n" + tt.doc)}
				below, none, err := Load([]byte(tt.image), nil, nil)
				if err != nil || none != nil {
					t.Fatal(err, none)
				}
				e, refused, err := Load([]byte(tt.image), texts[Vendor], texts[Instance])
				if err != nil {
					t.Fatal(err)
				}
				if tt.refused == nil {
					if len(refused) != 0 {
						t.Fatalf("refused: %v", refused[0].Err)
					}
					if !tt.holds(e) || !slices.Equal(e.Layers, []Layer{Image, layer}) {
						t.Errorf("got %#v of %v", plainPolicy(e.Policy), e.Layers)
					}
					return
				}
				if len(refused) != 1 || refused[0].Layer != layer || refused[0].File != layer.File() {
					t.Fatalf("got refusals %v", refused)
				}
				check(t, refused[0].Err, tt.refused...)
				var errs Errors
				if errors.As(refused[0].Err, &errs); errs[0].File != layer.File() {
					t.Errorf("no file in %v", errs[0])
				}
				if !reflect.DeepEqual(e, below) {
					t.Errorf("the layers below do not hold: got %#v", plainPolicy(e.Policy))
				}
			})
		}
	}
}

// recipientsOf returns the user's recipients, or what is wrong with their origin.
func recipientsOf(e *Effective, user string) string {
	var list []string
	rs, _ := e.RecipientsOf(user)
	for _, r := range rs {
		list = append(list, r.String())
	}
	if e.OriginOf(user) != e.Layers[len(e.Layers)-1] && e.OriginOf(user) != Image {
		return "from layer " + string(e.OriginOf(user))
	}
	return strings.Join(list, " ")
}

// Each layer is laid over what holds below it, a refused one or not.
func TestLoadThreeLayers(t *testing.T) {
	image := []byte("version: 1\nusers: [{name: alice, recipients: [" + age1 + "]}, {name: carol}]\nescrow_recipients: [" + age3 + "]\n")
	vendor := []byte("version: 1\nissuer: Vendor\nrate_limit: strict\nusers: [{name: bob, recipients: [" + age2 + "]}]\n")
	loose := []byte("version: 1\nissuer: Instance\nrate_limit: standard\n")
	instance := []byte("version: 3\nissuer: Instance\nnew: 1\ntoken: " + token + "\nusers: [{name: bob, recipients: [" + ssh1 + " bob@desk]}]\n")

	e, refused, err := Load(image, vendor, loose)
	if err != nil || len(refused) != 1 || refused[0].Layer != Instance || e.Issuer != "Vendor" || e.RateLimit != RateStrict {
		t.Errorf("the instance may not loosen what the vendor tightened: %v, %v, %#v", err, refused, plainPolicy(e.Policy))
	}

	e, refused, err = Load(image, []byte("version: 1\npackages: install\nrate_limit: strict\n"), loose)
	if err != nil || len(refused) != 1 || refused[0].Layer != Vendor || e.Issuer != "Instance" {
		t.Errorf("a refused vendor's layer must not bind the instance: %v, %v, %#v", err, refused, plainPolicy(e.Policy))
	}

	// The vendor's is found out when it is merged, the instance's before that.
	mixed := []byte("version: 1\nusers: [{name: bob, recipients: [" + hybrid1 + "]}]\n")
	e, refused, err = Load(image, mixed, []byte("version: 1\nrequire: 1\n"))
	if err != nil || len(refused) != 2 || refused[0].Layer != Vendor || refused[1].Layer != Instance || !slices.Equal(e.Layers, []Layer{Image}) {
		t.Errorf("two refusals, in order: %v, %v", err, refused)
	}

	e, refused, err = Load(image, vendor, instance)
	if err != nil || len(refused) != 0 {
		t.Fatal(err, refused)
	}
	if !slices.Equal(e.Layers, []Layer{Image, Vendor, Instance}) || e.Issuer != "Instance" || e.RateLimit != RateStrict || e.Token != token {
		t.Errorf("got %#v of %v", plainPolicy(e.Policy), e.Layers)
	}
	for user, origin := range map[string]Layer{"alice": Image, "bob": Instance, "carol": "", "dave": ""} {
		if got := e.OriginOf(user); got != origin {
			t.Errorf("recipients of %s are from %q, want %q", user, got, origin)
		}
		if e.Listed(user) != (user != "dave") {
			t.Errorf("%s: listed is %v", user, e.Listed(user))
		}
	}
	rs, escrow := e.RecipientsOf("bob")
	if len(rs) != 1 || rs[0].String() != ssh1 || len(escrow) != 1 || escrow[0].String() != age3 {
		t.Errorf("got recipients %v and escrow %v", rs, escrow)
	}
	if rs, _ := e.RecipientsOf("carol"); rs != nil {
		t.Errorf("carol has recipients %v", rs)
	}
	if e.AllowsAuthorizedKeys() {
		t.Error("login keys are opt-in")
	}
	if len(e.Notices) != 1 || e.Notices[0].Layer != Instance || e.Notices[0].Err.Path != "new" || e.Notices[0].File != Instance.File() {
		t.Errorf("got notices %v", e.Notices)
	}
}

func TestLoadImage(t *testing.T) {
	_, _, err := Load(nil, nil, nil)
	check(t, err, broken("", ErrMissing))
	_, _, err = Load([]byte{}, nil, nil)
	check(t, err, broken("", ErrEmpty))
	_, _, err = Load([]byte("version: 1\nissuer: a\nenroll: al\n"), nil, []byte("version: 1\n"))
	check(t, err, want{"enroll", 3, 9, ErrWord})
	_, refused, err := Load([]byte("version: 1\n"), []byte{}, nil)
	if err != nil || len(refused) != 1 {
		t.Fatalf("an empty layer is no layer: %v, %v", err, refused)
	}
	check(t, refused[0].Err, broken("", ErrEmpty))
}

// A merge has nothing in common with what it was made of.
func TestMergeCopies(t *testing.T) {
	image, instance := fullPolicy(), &Policy{Version: 1, Users: []User{{"alice", []string{age2}}}}
	e, refused := Merge(image, nil, instance)
	if refused != nil {
		t.Fatal(refused)
	}
	e.Users[0].Recipients[0], e.Users[1].Recipients[0], e.Users[1].Name, e.Channels[0].Type, e.EscrowRecipients[0] = "x", "x", "x", "x", "x"
	if !reflect.DeepEqual(image, fullPolicy()) || instance.Users[0].Recipients[0] != age2 {
		t.Error("changing the merge changed a layer")
	}
}

// Of two spellings of one http channel none is silently preferred.
func TestMergeChannelConflict(t *testing.T) {
	c := Channel{Type: ChannelHTTP, URL: "https://panel.example/{id}"}
	image := &Policy{Version: 1, Channels: []Channel{c}}
	c.Headers = map[string]string{"X-Token": "a"}
	_, refused := Merge(image, &Policy{Version: 1, Channels: []Channel{c}}, nil)
	if len(refused) != 1 {
		t.Fatalf("got %v", refused)
	}
	check(t, refused[0].Err, broken("channels[0]", ErrDuplicate))
	c.Headers, c.Method = nil, DefaultMethod
	if _, refused := Merge(image, &Policy{Version: 1, Channels: []Channel{c}}, nil); refused != nil {
		t.Errorf("the same channel is no conflict: %v", refused)
	}
}

// Whatever the layers say, what holds is a policy that could have been the
// image's, but for the token, and no weaker than the image's.
func FuzzMerge(f *testing.F) {
	f.Add([]byte(full), []byte("version: 1\nissuer: V\n"), []byte("version: 1\ntoken: "+token+"\n"))
	f.Add([]byte("version: 1\n"), []byte("version: 1\nusers: [{name: a, recipients: ["+hybrid1+"]}]\n"), []byte("version: 1\nusers: [{name: a, recipients: ["+age1+"]}]\n"))
	f.Add([]byte("version: 1\nrate_limit: strict\nrequire: all\n"), []byte("version: 2\nrate_limit: standard\nx: 1\n"), []byte("version: 1\nescrow_recipients: ["+age1+"]\n"))
	f.Add([]byte("version: 1\nrecipients_from: [authorized_keys]\n"), []byte("version: 1\nchannels: [{type: virtio}]\n"), []byte("version: 1\nenroll: listed\n"))
	f.Fuzz(func(t *testing.T, image, vendor, instance []byte) {
		e, refused, err := Load(image, vendor, instance)
		if err != nil {
			return
		}
		if len(e.Layers)+len(refused) > 3 || len(refused) > 2 {
			t.Fatalf("%d layers hold, %d are refused", len(e.Layers), len(refused))
		}
		base, err := Parse(Image, "", image)
		if err != nil {
			t.Fatal(err)
		}
		base = base.WithDefaults()
		if base.RateLimit == RateStrict && e.RateLimit != RateStrict || base.Require == RequireAll && e.Require != RequireAll ||
			!reflect.DeepEqual(base.RecipientsFrom, e.RecipientsFrom) || base.Packages != e.Packages || base.Enroll == EnrollAuto && e.Enroll != EnrollAuto ||
			len(e.Channels) < len(base.Channels) || len(e.Users) < len(base.Users) || len(e.EscrowRecipients) < len(base.EscrowRecipients) {
			t.Fatal("a layer took something away")
		}
		merged := e.Policy.clone()
		merged.Token = ""
		merged.RecipientsFrom = append(merged.RecipientsFrom, string(Image))
		if slices.Contains(base.RecipientsFrom, string(Image)) {
			merged.RecipientsFrom = base.RecipientsFrom
		}
		if errs := merged.Validate(Image); errs != nil {
			t.Fatalf("the merge is no policy: %v", errs)
		}
		for _, u := range e.Users {
			rs, escrow := e.RecipientsOf(u.Name)
			if len(rs) != len(u.Recipients) || len(escrow) != len(e.EscrowRecipients) || (e.OriginOf(u.Name) == "") != (len(rs) == 0) {
				t.Fatalf("%s has %d recipients of %d, from %q", u.Name, len(rs), len(u.Recipients), e.OriginOf(u.Name))
			}
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	image := []byte("version: 1\nissuer: Example Hosting\nescrow_recipients: [" + age3 + "]\n")
	instance := []byte("version: 1\ntoken: " + token + "\nusers:\n  - {name: alice, recipients: [" + age1 + "]}\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, refused, err := Load(image, nil, instance); err != nil || refused != nil {
			b.Fatal(err, refused)
		}
	}
}
