// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package browser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A Page is a tab.
type Page struct {
	b       *Browser
	t       *testing.T
	session string
	context string
	saved   string // where downloads go

	events  []message // guarded by b.mu
	arrived chan struct{}
}

// Open opens a file in a tab of its own and waits until it has loaded.
func (b *Browser) Open(t *testing.T, file string) *Page {
	t.Helper()
	p := b.blank(t, "")
	for _, domain := range []string{"Page", "Network", "Log"} {
		p.Do(domain+".enable", nil, nil)
	}
	p.Do("Page.navigate", map[string]any{"url": "file://" + filepath.ToSlash(file)}, nil)
	p.wait("Page.loadEventFired", nil)
	return p
}

// Reload loads the page anew.
func (p *Page) Reload() {
	p.t.Helper()
	p.Do("Page.reload", nil, nil)
	p.wait("Page.loadEventFired", nil)
}

// blank opens an empty tab, in a context of its own if none is named.
func (b *Browser) blank(t *testing.T, context string) *Page {
	t.Helper()
	p := &Page{b: b, t: t, context: context, saved: t.TempDir(), arrived: make(chan struct{}, 1)}
	top := &Page{b: b, t: t}
	if context == "" {
		var made struct{ BrowserContextID string }
		top.Do("Target.createBrowserContext", nil, &made)
		p.context = made.BrowserContextID
		t.Cleanup(func() { top.Do("Target.disposeBrowserContext", map[string]any{"browserContextId": p.context}, nil) })
		top.Do("Browser.setDownloadBehavior", map[string]any{"behavior": "allow", "downloadPath": p.saved, "eventsEnabled": true, "browserContextId": p.context}, nil)
	}
	var target struct{ TargetID string }
	top.Do("Target.createTarget", map[string]any{"url": "about:blank", "browserContextId": p.context}, &target)
	var attached struct{ SessionID string }
	top.Do("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p.session = attached.SessionID
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	p.Do("Runtime.enable", nil, nil)
	p.Do("Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true}, nil)
	return p
}

// Do sends a command of the protocol.
func (p *Page) Do(method string, params, result any) {
	p.t.Helper()
	if err := p.b.call(p.session, method, params, result); err != nil {
		p.t.Fatal(err)
	}
}

// seen returns the events of these kinds so far.
func (p *Page) seen(methods ...string) []message {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	var found []message
	for _, m := range p.events {
		if slices.Contains(methods, m.Method) {
			found = append(found, m)
		}
	}
	return found
}

// wait waits for an event, takes it from the list, and decodes it.
func (p *Page) wait(method string, params any) {
	p.t.Helper()
	p.b.wait(p.t, p, method, params)
}

func (b *Browser) wait(t *testing.T, p *Page, method string, params any) {
	t.Helper()
	late := time.After(patience)
	for {
		b.mu.Lock()
		i := slices.IndexFunc(p.events, func(m message) bool { return m.Method == method })
		var raw json.RawMessage
		if i >= 0 {
			raw = p.events[i].Params
			p.events = slices.Delete(p.events, i, i+1)
		}
		b.mu.Unlock()
		if i >= 0 {
			if params == nil {
				return
			}
			if err := json.Unmarshal(raw, params); err != nil {
				t.Fatal(err)
			}
			return
		}
		select {
		case <-p.arrived:
		case <-late:
			t.Fatalf("no %s", method)
		}
	}
}

// Eval evaluates JavaScript in the page, and waits if it is a promise. The page's
// own policy does not hold for it.
func (p *Page) Eval(script string, result any) {
	p.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	p.Do("Runtime.evaluate", map[string]any{"expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": false}, &r)
	if r.ExceptionDetails != nil {
		p.t.Fatalf("%s: %s", script, r.ExceptionDetails)
	}
	if result != nil {
		if err := json.Unmarshal(r.Result.Value, result); err != nil {
			p.t.Fatalf("%s: %v in %q", script, err, r.Result.Value)
		}
	}
}

// Text evaluates JavaScript to a string.
func (p *Page) Text(script string) string {
	p.t.Helper()
	var s string
	p.Eval(script, &s)
	return s
}

// Until waits until JavaScript is true in the page; it is looked at after each
// change of the page.
func (p *Page) Until(condition string) {
	p.t.Helper()
	p.Eval(fmt.Sprintf(`new Promise((done) => {
		const look = () => { if (%s) { watch.disconnect(); done(true); } };
		const watch = new MutationObserver(look);
		watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
		look();
	})`, condition), nil)
}

// keys are those that have no character.
var keys = map[string]struct {
	code int
	text string
}{"Tab": {9, ""}, "Enter": {13, "\r"}, "Space": {32, " "}, "v": {86, ""}, "c": {67, ""}, "a": {65, ""}}

// Press presses a key: Tab, Shift+Tab, Enter or Space.
func (p *Page) Press(key string) {
	p.t.Helper()
	name, shift := strings.CutPrefix(key, "Shift+")
	p.press(name, map[bool]int{true: 8}[shift])
}

// press presses a key with modifiers, and the browser's editing commands that
// the key stands for.
func (p *Page) press(name string, modifiers int, commands ...string) {
	p.t.Helper()
	key, ok := keys[name]
	if !ok {
		p.t.Fatalf("no key %q", name)
	}
	shown := name
	if name == "Space" {
		shown = " "
	}
	event := map[string]any{"type": "keyDown", "key": shown, "code": name, "windowsVirtualKeyCode": key.code, "modifiers": modifiers}
	if key.text != "" {
		event["text"] = key.text
	}
	if commands != nil {
		event["commands"] = commands
	}
	p.Do("Input.dispatchKeyEvent", event, nil)
	p.Do("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": shown, "code": name, "windowsVirtualKeyCode": key.code, "modifiers": modifiers}, nil)
}

const ctrl = 2

// Copy puts a text on the clipboard, in another tab.
func (p *Page) Copy(text string) {
	p.t.Helper()
	if p.b.board == nil {
		p.b.board = p.b.blank(p.b.t, "")
		p.b.board.Eval(`document.body.append(document.createElement("textarea"))`, nil)
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		p.t.Fatal(err)
	}
	p.b.board.Eval(fmt.Sprintf(`{ const t = document.querySelector("textarea"); t.value = %s; t.focus(); t.select(); }`, quoted), nil)
	p.b.board.press("c", ctrl, "copy")
	p.Do("Page.bringToFront", nil, nil)
}

// Paste presses Ctrl+V.
func (p *Page) Paste() {
	p.t.Helper()
	p.press("v", ctrl, "paste")
}

// Put pastes a text into the field of that id, in the place of what is there.
func (p *Page) Put(id, text string) {
	p.t.Helper()
	p.Copy(text)
	p.Eval(fmt.Sprintf(`document.getElementById(%q).focus()`, id), nil)
	p.press("a", ctrl, "selectAll")
	p.Paste()
}

// Click clicks in the middle of the first element of that selector.
func (p *Page) Click(selector string) {
	p.t.Helper()
	var at struct{ X, Y float64 }
	p.Eval(fmt.Sprintf(`{ const e = document.querySelector(%q); e.scrollIntoView({block: "center"}); const r = e.getBoundingClientRect(); ({ x: r.x + r.width / 2, y: r.y + r.height / 2 }) }`, selector), &at)
	for _, typ := range []string{"mousePressed", "mouseReleased"} {
		p.Do("Input.dispatchMouseEvent", map[string]any{"type": typ, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
	}
}

// Drop drops a file on the middle of the window.
func (p *Page) Drop(file string) {
	p.t.Helper()
	data := map[string]any{"items": []any{}, "files": []string{file}, "dragOperationsMask": 1}
	for _, typ := range []string{"dragEnter", "dragOver", "drop"} {
		p.Do("Input.dispatchDragEvent", map[string]any{"type": typ, "x": 200, "y": 200, "data": data}, nil)
	}
}

// Choose does something that opens a file dialog, and chooses a file in it.
func (p *Page) Choose(file string, open func()) {
	p.t.Helper()
	p.Do("Page.setInterceptFileChooserDialog", map[string]any{"enabled": true}, nil)
	open()
	var chooser struct{ BackendNodeID int }
	p.wait("Page.fileChooserOpened", &chooser)
	p.Do("DOM.setFileInputFiles", map[string]any{"files": []string{file}, "backendNodeId": chooser.BackendNodeID}, nil)
}

// Saved does something that saves a file, and returns its name and content.
func (p *Page) Saved(save func()) (name string, data []byte) {
	p.t.Helper()
	save()
	var begun struct{ GUID, SuggestedFilename string }
	p.b.wait(p.t, p.b.all, "Browser.downloadWillBegin", &begun)
	for state := ""; state != "completed"; {
		var progress struct{ GUID, State string }
		p.b.wait(p.t, p.b.all, "Browser.downloadProgress", &progress)
		if progress.GUID == begun.GUID {
			state = progress.State
		}
		if state == "canceled" {
			p.t.Fatal("the download was cancelled")
		}
	}
	data, err := os.ReadFile(filepath.Join(p.saved, begun.SuggestedFilename))
	if err != nil {
		p.t.Fatal(err)
	}
	return begun.SuggestedFilename, data
}

// Media shows the page on another medium ("print", or "" for the screen) and in
// the colours that the owner prefers: "light" or "dark".
func (p *Page) Media(medium, colours string) {
	p.t.Helper()
	p.Do("Emulation.setEmulatedMedia", map[string]any{"media": medium, "features": []any{map[string]any{"name": "prefers-color-scheme", "value": colours}}}, nil)
}

// Width makes the window so wide, as a phone's is.
func (p *Page) Width(pixels int) {
	p.t.Helper()
	p.Do("Emulation.setDeviceMetricsOverride", map[string]any{"width": pixels, "height": 740, "deviceScaleFactor": 2, "mobile": true}, nil)
}

// Picture returns the picture of the first element of a selector with what is
// around it on the page, so many pixels on each side.
func (p *Page) Picture(selector string, around float64) image.Image {
	p.t.Helper()
	var r struct{ X, Y, Width, Height float64 }
	p.Eval(fmt.Sprintf(`{ const r = document.querySelector(%q).getBoundingClientRect(); ({ x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height }) }`, selector), &r)
	var shot struct{ Data []byte }
	p.Do("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true,
		"clip": map[string]any{"x": max(0, r.X-around), "y": max(0, r.Y-around), "width": r.Width + 2*around, "height": r.Height + 2*around, "scale": 1}}, &shot)
	if dir := os.Getenv("TOTP_PICTURES"); dir != "" { // to look at
		name := strings.NewReplacer("/", "-", " ", "-").Replace(p.t.Name()) + ".png"
		if err := os.WriteFile(filepath.Join(dir, name), shot.Data, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	img, err := png.Decode(bytes.NewReader(shot.Data))
	if err != nil {
		p.t.Fatal(err)
	}
	return img
}

// CPU is the time on a processor that the page's main thread has spent so far.
func (p *Page) CPU() time.Duration {
	p.t.Helper()
	p.Do("Performance.enable", map[string]any{"timeDomain": "threadTicks"}, nil)
	var m struct {
		Metrics []struct {
			Name  string
			Value float64 // seconds
		}
	}
	p.Do("Performance.getMetrics", nil, &m)
	for _, metric := range m.Metrics {
		if metric.Name == "TaskDuration" {
			return time.Duration(metric.Value * float64(time.Second))
		}
	}
	p.t.Fatal("chromium has no TaskDuration")
	return 0
}

// Complaints are the exceptions that the page has thrown, and the errors that it
// or the browser has logged.
func (p *Page) Complaints() []string {
	var all []string
	for _, m := range p.seen("Runtime.exceptionThrown", "Log.entryAdded") {
		all = append(all, m.Method+": "+string(m.Params))
	}
	return all
}

// Requests returns the URL of every request that the page has made so far, the
// one for itself included.
func (p *Page) Requests() []string {
	p.t.Helper()
	var urls []string
	for _, m := range p.seen("Network.requestWillBeSent", "Network.webSocketCreated") {
		var e struct {
			Request struct{ URL string }
			URL     string
		}
		if err := json.Unmarshal(m.Params, &e); err != nil {
			p.t.Fatal(err)
		}
		urls = append(urls, e.Request.URL+e.URL)
	}
	return urls
}
