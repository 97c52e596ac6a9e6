
"use strict";
// Draws the calls that stand in the element "data". Everything that came from the network becomes
// text nodes or numbers, never markup.

const report = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const NAMES = { inbound: "Inbound", outbound: "Outbound" };
const WORDS = { good: "Good", fair: "Fair", poor: "Poor" };
const TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
const WAVE = 112, BASE = 98, STRIP = 20, NET = 54, AXIS = 26, OVERVIEW = 38;
const LEAST_SPAN = 0.25;
const SVG = "http://www.w3.org/2000/svg";

// ---- elements ------------------------------------------------------------------------------

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// ---- words and numbers ----------------------------------------------------------------------

function clock(seconds, digits = 0) {
  const unit = 10 ** digits, all = Math.round(Math.max(0, seconds) * unit);
  const rest = (all % (60 * unit)) / unit, minutes = Math.floor(all / unit / 60);
  const tail = rest.toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return minutes >= 60 ? `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}
function lasting(seconds) {
  if (seconds < 0.05) return "0 s";
  if (seconds < 60) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const both = (a, one, b, other) => `${a} ${one}${b ? ` ${b} ${other}` : ""}`;
  if (whole < 3600) return both(Math.floor(whole / 60), "min", whole % 60, "s");
  return both(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
}
const grouped = (number) => Math.round(number).toLocaleString("en");
const some = (n, one, many = `${one}s`) => `${grouped(n)} ${n === 1 ? one : many}`;
function percent(ratio) {
  const value = 100 * ratio;
  return value === 0 ? "0 %" : value < 0.01 ? "< 0.01 %" : `${value < 1 ? value.toFixed(2) : value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}
function moment(text, options) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? "unknown" : new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options }).format(date);
}
const longMoment = (text) => `${moment(text, { dateStyle: "long", timeStyle: "medium" })} UTC`;
const shortMoment = (text) => moment(text, { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const max = (list, least = 0) => list.reduce((a, b) => (b > a ? b : a), least);
const total = (list) => list.reduce((a, b) => a + b, 0);
// Without a voice activity sink nothing is known of who speaks.
const isHeard = (view) => view.talk_over.length + view.silence.length + total(view.lanes.map((lane) => lane.speech.length)) > 0;
const isNumber = (value) => typeof value === "number";

function who(view) {
  if (view.from || view.to) {
    return [h("bdi", {}, view.from || "unknown"), h("span", { class: "to", "aria-label": "called" }, "\u2192"), h("bdi", {}, view.to || "unknown")];
  }
  return ["Call ", h("bdi", {}, (view.call_leg_id || "").slice(0, 8))];
}
function party(view, direction) {
  const number = view.direction === "incoming" ? view.from : view.direction === "outgoing" ? view.to : null;
  return (direction === "inbound" ? "said by " : "said to ") + (number || `the phone on leg ${view.leg || "A"}`);
}
function verdict(view, isSmall) {
  if (!view.grade) return null;
  const score = isNumber(view.mos) ? ` \u00b7 ${view.mos.toFixed(1)}` : "";
  return h("span", { class: `badge ${view.grade}${isSmall ? " small" : ""}` }, `${WORDS[view.grade]}${score}`);
}

// ---- waveforms --------------------------------------------------------------------------------

function decode(wave) {
  if (!wave.low) {
    const bytes = Int8Array.from(atob(wave.columns), (c) => c.charCodeAt(0));
    const n = bytes.length / 3;
    Object.assign(wave, { n, low: bytes.subarray(0, n), high: bytes.subarray(n, 2 * n), rms: bytes.subarray(2 * n) });
  }
  return wave;
}
const loudest = (view) =>
  max(view.lanes.flatMap((lane) => lane.waves.map(decode).map((wave) => max([max(wave.high), -wave.low.reduce((a, b) => (b < a ? b : a), 0)]))), 6);

// The outlines of a waveform between two moments, as paths of `width` by `height` pixels.
function outlines(waves, from, to, width, height, scale, pixel = 1) {
  const middle = height / 2, unit = (middle - 3) / scale;
  const paths = { peak: "", body: "", columns: 0 };
  for (const wave of waves.map(decode)) {
    const perPixel = ((to - from) / width) * pixel;
    const first = Math.max(0, Math.floor((from - wave.start_s) / wave.column_s));
    const last = Math.min(wave.n, Math.ceil((to - wave.start_s) / wave.column_s) + 1);
    if (last <= first) continue;
    const step = Math.max(1, perPixel / wave.column_s);
    const top = [], bottom = [], upper = [], lower = [];
    for (let at = Math.floor(first / step) * step; at < last; at += step) {
      const begin = Math.max(first, Math.floor(at)), end = Math.min(last, Math.max(Math.floor(at + step), begin + 1));
      if (begin >= end) continue;
      let low = 127, high = -127, rms = 0;
      for (let i = begin; i < end; i++) {
        if (wave.low[i] < low) low = wave.low[i];
        if (wave.high[i] > high) high = wave.high[i];
        if (wave.rms[i] > rms) rms = wave.rms[i];
      }
      const x = (((wave.start_s + (at + step / 2) * wave.column_s - from) / (to - from)) * width).toFixed(1);
      top.push(`${x} ${(middle - Math.max(high, 0) * unit).toFixed(1)}`);
      bottom.push(`${x} ${(middle - Math.min(low, 0) * unit).toFixed(1)}`);
      upper.push(`${x} ${(middle - rms * unit).toFixed(1)}`);
      lower.push(`${x} ${(middle + rms * unit).toFixed(1)}`);
    }
    paths.columns += top.length;
    paths.peak += `M${top.join("L")}L${bottom.reverse().join("L")}Z`;
    paths.body += `M${upper.join("L")}L${lower.reverse().join("L")}Z`;
  }
  return paths;
}

// ---- a call -------------------------------------------------------------------------------------

class Player {
  // What plays: the audio in this file, or the recordings beside it.
  constructor(view, index, changed) {
    this.view = view;
    this.changed = changed;
    this.at = 0;
    this.listen = "both";
    this.error = null;
    this.audio = null;
    this.source = null;
    this.index = index;
  }
  get exists() { return this.view.audio !== null; }
  get isPlaying() { return this.audio !== null && !this.audio.paused && !this.audio.ended; }
  load() {
    const told = this.view.audio.sources;
    // of a recording in several files, the one that holds the moment
    const pieces = told[this.listen] || told.both || Object.values(told)[0];
    const source = pieces.reduce((found, piece) => (piece.start_s <= this.at + 0.01 ? piece : found), pieces[0]);
    this.next = pieces[pieces.indexOf(source) + 1];
    if (this.source === source) return;
    const wasPlaying = this.isPlaying;
    if (this.audio) this.audio.pause();
    this.source = source;
    this.audio = new Audio();
    this.audio.preload = "auto";
    this.audio.addEventListener("error", () => {
      this.error = "This browser cannot play the recording, or it is not where it was.";
      this.changed();
    });
    this.audio.addEventListener("ended", () => {
      if (!this.next) return;
      this.at = this.next.start_s;
      this.play();
    });
    for (const kind of ["play", "pause", "ended", "seeked"]) this.audio.addEventListener(kind, () => this.changed());
    if (source.embedded !== undefined) {
      const coded = document.getElementById(`audio-${source.embedded}`).textContent;
      const bytes = Uint8Array.from(atob(coded), (c) => c.charCodeAt(0));
      this.audio.src = URL.createObjectURL(new Blob([bytes], { type: source.type }));
    } else this.audio.src = source.href;
    this.audio.playbackRate = this.rate || 1;
    this.place(this.audio, this.at - source.start_s);
    if (wasPlaying) this.play();
  }
  now() {
    if (this.audio && this.audio.readyState > 0) this.at = this.audio.currentTime + this.source.start_s;
    return this.at;
  }
  seek(at) {
    this.at = Math.min(Math.max(0, at), this.view.duration_s);
    if (!this.audio) return;
    const before = this.source;
    this.load();
    if (this.source === before) this.place(this.audio, this.at - before.start_s);
  }
  place(audio, at) {
    if (audio.readyState > 0) audio.currentTime = Math.max(0, at);
    else audio.addEventListener("loadedmetadata", () => { audio.currentTime = Math.max(0, at); }, { once: true });
  }
  speed(rate) {
    this.rate = rate;
    if (this.audio) this.audio.playbackRate = rate;
  }
  hear(which) {
    this.listen = which;
    if (this.view.audio.kind === "linked") { if (this.audio) this.load(); return; }
    this.load();
    if (!this.gains) {
      const context = (this.context = new AudioContext());
      const splitter = context.createChannelSplitter(2), merger = context.createChannelMerger(2);
      context.createMediaElementSource(this.audio).connect(splitter);
      this.gains = [0, 1].map((from) => [0, 1].map((to) => {
        const gain = context.createGain();
        splitter.connect(gain, from);
        gain.connect(merger, 0, to);
        return gain;
      }));
      merger.connect(context.destination);
    }
    const only = this.view.lanes.findIndex((lane) => lane.direction === which);
    this.gains.forEach((row, from) => row.forEach((gain, to) => {
      gain.gain.value = only < 0 ? Number(from === to) : Number(from === only);
    }));
    this.context.resume();
  }
  play() {
    this.load();
    if (this.at >= this.view.duration_s - 0.05) this.seek(0);
    this.audio.play().catch(() => {});
  }
  toggle() { if (this.isPlaying) this.audio.pause(); else this.play(); }
  stop() { if (this.audio) this.audio.pause(); }
}

class Timeline {
  constructor(view, player) {
    this.view = view;
    this.player = player;
    this.end = Math.max(view.duration_s, 0.1);
    this.from = 0;
    this.to = this.end;
    this.scale = loudest(view);
    this.hasNet = view.lanes.some((lane) => lane.timeline.length);
    this.lanes = view.lanes.map((lane) => ({ lane, wave: s("svg"), net: this.hasNet ? s("svg") : null }));
    this.strip = s("svg");
    this.axis = s("svg");
    this.cursor = h("div", { class: "cursor" });
    this.hair = h("div", { class: "hair", hidden: true });
    this.tip = h("div", { class: "tip", hidden: true });
    const blocks = this.lanes.map(({ lane, wave, net }) => [this.laneHead(lane), wave, net && this.netHead(lane), net]);
    this.stage = h("div", {
      class: "stage", tabindex: 0, role: "slider", "aria-label": "Position in the call", "aria-valuemin": 0,
      "aria-valuemax": this.end.toFixed(1),
      onclick: (event) => this.seek(this.timeAt(event)), ondblclick: (event) => this.zoom(0.5, this.timeAt(event)),
      onpointermove: (event) => this.hover(event), onpointerleave: () => this.hover(null),
      onkeydown: (event) => this.key(event),
    }, blocks[0], this.strip, blocks.slice(1), this.axis, this.hair, this.cursor, this.tip);
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.overviewSvg = s("svg", { "aria-hidden": "true" });
    this.overview = h("div", { class: "overview", hidden: true, onpointerdown: (event) => this.pan(event), onpointermove: (event) => event.buttons && this.pan(event) }, this.overviewSvg);
    this.width = 0;
    new ResizeObserver(() => { if (this.stage.clientWidth && this.stage.clientWidth !== this.width) this.draw(); }).observe(this.stage);
  }
  laneHead(lane) {
    const lost = lane.lost_packets ? `${some(lane.lost_packets, "packet")} lost` : "nothing lost";
    return h("div", { class: `lanehead ${lane.direction}` }, h("span", {}, h("b", {}, NAMES[lane.direction]), " ", h("bdi", {}, party(this.view, lane.direction))),
      h("span", {}, isHeard(this.view) ? `speaks ${lasting(lane.speech_s)}, ${lost}` : lost));
  }
  netHead(lane) {
    const jitter = max(lane.timeline.flatMap((t) => t.jitter_ms)), ratio = max(lane.timeline.flatMap(lossRatios));
    return h("div", { class: "lanehead" }, h("span", {}, "Network"), h("span", {}, `loss up to ${percent(ratio)}, jitter up to ${jitter.toFixed(1)} ms`));
  }
  x(at) { return ((at - this.from) / (this.to - this.from)) * this.width; }
  timeAt(event) {
    const box = this.stage.getBoundingClientRect();
    return Math.min(this.end, Math.max(0, this.from + ((event.clientX - box.left) / box.width) * (this.to - this.from)));
  }
  // One path of boxes, so that ten thousand of them are one element.
  boxes(spans, y, height, least = 1) {
    let path = "", drawn = 0;
    for (const [a, b] of spans) {
      if (b < this.from || a > this.to) continue;
      const left = this.x(Math.max(a, this.from)), right = Math.max(this.x(Math.min(b, this.to)), left + least);
      path += `M${left.toFixed(1)} ${y}H${right.toFixed(1)}V${y + height}H${left.toFixed(1)}Z`;
      drawn++;
    }
    return { path, drawn };
  }
  draw() {
    this.width = this.stage.clientWidth;
    if (!this.width) return;
    for (const each of this.lanes) this.drawLane(each);
    this.drawStrip();
    this.drawAxis();
    this.drawOverview();
    this.place();
  }
  size(svg, height) {
    svg.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    return svg;
  }
  drawLane({ lane, wave, net }) {
    const view = this.view, width = this.width;
    this.size(wave, WAVE);
    wave.setAttribute("class", lane.direction);
    const tracks = this.boxes(lane.tracks.map((track) => [track.start_s, track.end_s]), 8, BASE - 8);
    const speech = this.boxes(lane.speech, 8, BASE - 8), spoken = this.boxes(lane.speech, BASE - 3, 3);
    const paths = outlines(lane.waves, this.from, this.to, width, BASE - 8, this.scale);
    const middle = 8 + (BASE - 8) / 2;
    let marks = "", lost = 0, before = -9;
    for (const at of lane.lost) {
      if (at < this.from || at > this.to) continue;
      lost++;
      const x = Math.round(this.x(at) * 2) / 2;
      if (x !== before) marks += `M${x} ${BASE + 1}V${WAVE}`;
      before = x;
    }
    const unlisted = this.boxes(lane.lost_unlisted, BASE + 4, WAVE - BASE - 4);
    const paused = this.boxes(view.paused, 8, BASE - 8);
    const concealed = this.boxes(lane.concealed, 8, BASE - 8);
    wave.append(
      hatch(), s("path", { class: "ground", d: tracks.path }), s("path", { class: "speech", d: speech.path }), s("path", { class: "filled", d: concealed.path }),
      s("line", { class: "zero", x1: 0, x2: width, y1: middle, y2: middle }),
      s("g", { transform: "translate(0 8)" }, s("path", { class: "peak", d: paths.peak }), s("path", { class: "body", d: paths.body })),
      s("path", { class: "spoken", d: spoken.path }), s("path", { class: "lostmark", d: marks }), s("path", { class: "lostsome", d: unlisted.path }),
      s("path", { class: "pausebox", d: paused.path }),
    );
    for (const [a, b] of view.paused) {
      const left = Math.max(0, this.x(a)), right = Math.min(width, this.x(b));
      if (right - left > 60) wave.append(s("text", { class: "pausetext", x: (left + right) / 2, y: middle + 4 }, "paused"));
    }
    for (const track of lane.tracks.slice(1)) {
      if (track.start_s < this.from || track.start_s > this.to) continue;
      const x = this.x(track.start_s);
      wave.append(s("line", { class: "cut", x1: x, x2: x, y1: 8, y2: BASE }), s("text", { class: "cuttext", x: x + 4, y: 19 }, "new segment"));
    }
    for (const { at_s: at } of lane.changes) {
      if (at >= this.from && at <= this.to) wave.append(s("line", { class: "cut", x1: this.x(at), x2: this.x(at), y1: 8, y2: BASE }));
    }
    const keys = lane.dtmf.filter((key) => key.at_s >= this.from && key.at_s <= this.to);
    // keys that are too close for a box of their own share one
    const chips = [];
    for (const key of keys) {
      const x = this.x(key.at_s), last = chips[chips.length - 1];
      wave.append(s("rect", { class: "keyspan", x, y: 8, width: Math.max(1, ((key.duration_ms || 0) / 1000 / (this.to - this.from)) * width), height: BASE - 8 }),
        s("line", { class: "keyline", x1: x, x2: x, y1: 18, y2: BASE }));
      if (last && x - last.x < 9 + 8 * last.text.length) last.text += key.digit;
      else chips.push({ x, text: key.digit });
    }
    for (const { x, text } of chips) {
      const most = text.length > 8 ? `${text.slice(0, 7)}\u2026` : text;
      const wide = 8 + 8 * most.length, left = Math.min(Math.max(0, x - 8), width - wide);
      wave.append(s("rect", { class: "keybox", x: left, y: 1, width: wide, height: 17, rx: 4 }), s("text", { class: "keytext", x: left + wide / 2, y: 14 }, most));
    }
    mark(wave, { lane: lane.direction, waveColumns: paths.columns, speech: speech.drawn, lost, concealed: concealed.drawn, dtmf: keys.length, paused: paused.drawn });
    wave.setAttribute("role", "img");
    wave.setAttribute("aria-label", `${NAMES[lane.direction]}: waveform, ${some(lane.speech.length, "stretch", "stretches")} of speech, ${some(lane.lost_places, "place")} with lost packets, ${some(lane.dtmf.length, "key press", "key presses")}`);
    if (net) this.drawNet(lane, net);
  }
  drawNet(lane, svg) {
    this.size(svg, NET);
    svg.setAttribute("class", lane.direction);
    const most = Math.max(0.05, max(lane.timeline.flatMap(lossRatios))), peak = Math.max(10, max(lane.timeline.flatMap((t) => t.jitter_ms)));
    let bars = "", line = "", drawn = 0, points = 0;
    for (const timeline of lane.timeline) {
      const ratios = lossRatios(timeline), n = timeline.jitter_ms.length;
      // several intervals to a pixel: the worst of them
      const group = Math.max(1, Math.ceil(((this.to - this.from) / this.width / timeline.interval_s) * 1.5));
      let pen = "M";
      for (let i = 0; i < Math.max(n, ratios.length); i += group) {
        const a = timeline.start_s + i * timeline.interval_s, b = a + group * timeline.interval_s;
        if (b < this.from || a > this.to) continue;
        const ratio = max(ratios.slice(i, i + group)), jitter = timeline.jitter_ms.slice(i, i + group).filter(isNumber);
        const left = this.x(a), right = Math.max(left + 1.5, this.x(b) - 1);
        if (ratio > 0) {
          bars += `M${left.toFixed(1)} ${NET - 2}V${(NET - 2 - (NET - 8) * Math.min(1, ratio / most)).toFixed(1)}H${right.toFixed(1)}V${NET - 2}Z`;
          drawn++;
        }
        if (jitter.length) {
          line += `${pen}${((left + right) / 2).toFixed(1)} ${(NET - 3 - (NET - 10) * (max(jitter) / peak)).toFixed(1)}`;
          pen = "L";
          points++;
        } else pen = "M";
      }
    }
    svg.append(s("line", { class: "base", x1: 0, x2: this.width, y1: NET - 1.5, y2: NET - 1.5 }), s("path", { class: "lossbar", d: bars }), s("path", { class: "jitter", d: line }));
    mark(svg, { net: lane.direction, lossBars: drawn, jitterPoints: points });
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${NAMES[lane.direction]}: loss and jitter over time`);
  }
  drawStrip() {
    this.size(this.strip, STRIP);
    const over = this.boxes(this.view.talk_over, 6, 9, 2), mute = this.boxes(this.view.silence, 8, 5, 2);
    this.strip.append(s("line", { class: "base", x1: 0, x2: this.width, y1: 10.5, y2: 10.5 }), s("path", { class: "mute", d: mute.path }), s("path", { class: "over", d: over.path }));
    mark(this.strip, { talkOver: over.drawn, silence: mute.drawn });
    this.strip.setAttribute("role", "img");
    this.strip.setAttribute("aria-label", `Both speak ${some(this.view.talk_over.length, "time")}, nobody speaks ${some(this.view.silence.length, "time")}`);
  }
  drawAxis() {
    this.size(this.axis, AXIS);
    const span = this.to - this.from;
    const step = TICKS.find((tick) => (tick / span) * this.width >= 76) || 86400 * Math.ceil((76 * span) / this.width / 86400);
    const digits = step < 1 ? 1 : 0;
    for (let n = Math.ceil(this.from / step - 1e-9); n * step <= this.to + 1e-9; n++) {
      const x = this.x(n * step), anchor = x < 20 ? "start" : x > this.width - 24 ? "end" : "middle";
      this.axis.append(s("line", { class: "tick", x1: x, x2: x, y1: 0, y2: 5 }), s("text", { class: "ticktext", x: x < 20 ? x + 4 : x, y: 19, "text-anchor": anchor }, clock(n * step, digits)));
    }
    this.axis.setAttribute("aria-hidden", "true");
  }
  drawOverview() {
    this.overview.hidden = this.to - this.from >= this.end - 1e-6;
    if (this.overview.hidden) return;
    const width = this.width;
    this.overviewSvg.setAttribute("viewBox", `0 0 ${width} ${OVERVIEW}`);
    this.overviewSvg.setAttribute("height", OVERVIEW);
    const left = (this.from / this.end) * width, right = (this.to / this.end) * width;
    const waves = this.view.lanes.map((lane) => {
      const paths = outlines(lane.waves, 0, this.end, width, OVERVIEW, this.scale, 1.5);
      return s("path", { class: `peak ${lane.direction}`, d: paths.peak });
    });
    this.overviewSvg.replaceChildren(...waves, s("rect", { class: "window", x: left, y: 0, width: Math.max(2, right - left), height: OVERVIEW, rx: 3 }),
      s("line", { class: "windowedge", x1: left, x2: left, y1: 0, y2: OVERVIEW }), s("line", { class: "windowedge", x1: right, x2: right, y1: 0, y2: OVERVIEW }));
  }
  place() {
    const at = this.player.now(), x = this.x(at);
    this.cursor.hidden = at < this.from || at > this.to;
    this.cursor.style.transform = `translateX(${x}px)`;
    this.stage.setAttribute("aria-valuenow", at.toFixed(1));
    this.stage.setAttribute("aria-valuetext", `${clock(at, 1)}, ${this.happening(at).join(", ") || "silence"}`);
  }
  happening(at, slack = 0) {
    const inside = (spans) => spans.some(([a, b]) => at >= a && at <= b);
    const told = [];
    if (inside(this.view.paused)) told.push("recording paused");
    if (inside(this.view.talk_over)) told.push("both speak");
    else for (const lane of this.view.lanes) if (inside(lane.speech)) told.push(`${lane.direction} speaks`);
    if (inside(this.view.silence)) told.push("nobody speaks");
    for (const lane of this.view.lanes) {
      for (const key of lane.dtmf) if (Math.abs(key.at_s - at) <= Math.max(slack, 0.1)) told.push(`key ${key.digit} (${lane.direction})`);
      if (lane.lost.some((lost) => Math.abs(lost - at) <= slack)) told.push(`packet lost (${lane.direction})`);
    }
    return told;
  }
  hover(event) {
    this.hair.hidden = this.tip.hidden = event === null || event.pointerType === "touch";
    if (this.hair.hidden) return;
    const at = this.timeAt(event), x = this.x(at);
    const told = this.happening(at, (3 / this.width) * (this.to - this.from));
    this.hair.style.transform = `translateX(${x}px)`;
    this.tip.replaceChildren(h("b", {}, clock(at, 1)), ...told.slice(0, 4).map((text) => h("div", {}, text)));
    const width = this.tip.offsetWidth;
    this.tip.style.left = `${x + 12 + width > this.width ? x - 12 - width : x + 12}px`;
  }
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 30 : 5, at = this.player.now();
    const actions = {
      ArrowLeft: () => this.seek(at - far), ArrowRight: () => this.seek(at + far), ArrowDown: () => this.seek(at - 1), ArrowUp: () => this.seek(at + 1),
      PageUp: () => this.seek(at + 60), PageDown: () => this.seek(at - 60), Home: () => this.seek(0), End: () => this.seek(this.end),
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), 0: () => this.show(0, this.end),
      " ": () => this.player.exists && this.player.toggle(), Enter: () => this.player.exists && this.player.toggle(),
    };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  }
  wheel(event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.timeAt(event));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) && this.to - this.from < this.end) {
      event.preventDefault();
      this.move((event.deltaX / this.width) * (this.to - this.from));
    }
  }
  pan(event) {
    const box = this.overview.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * this.end;
    this.move(at - (this.from + this.to) / 2);
  }
  move(by) {
    const span = this.to - this.from, from = Math.min(Math.max(0, this.from + by), this.end - span);
    this.show(from, from + span);
  }
  zoom(factor, around) {
    const at = around === undefined ? Math.min(Math.max(this.player.now(), this.from), this.to) : around;
    const span = Math.min(this.end, Math.max(LEAST_SPAN, (this.to - this.from) * factor));
    const from = Math.min(Math.max(0, at - ((at - this.from) / (this.to - this.from)) * span), this.end - span);
    this.show(from, from + span);
  }
  show(from, to) {
    this.from = from;
    this.to = to;
    this.draw();
  }
  seek(at) {
    this.player.seek(at);
    this.follow();
    this.place();
    this.player.changed();
  }
  follow() {
    const at = this.player.at;
    if (at < this.from || at > this.to) this.move(at - this.from - (this.to - this.from) * 0.1);
  }
}

const lossRatios = (timeline) => timeline.lost.map((lost, i) => (lost > 0 ? lost / (lost + Math.max(0, timeline.packets[i] || 0)) : 0));
const mark = (element, facts) => Object.assign(element.dataset, facts);
const hatch = () => s("defs", {}, s("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, s("line", { class: "hatchline", x1: 0, x2: 0, y1: 0, y2: 7 })));

function renderCall(view, index) {
  const timeline = { current: null };
  const player = new Player(view, index, () => refresh());
  const chart = (timeline.current = new Timeline(view, player));
  const icon = s("path");
  const button = h("button", { class: "play", type: "button", disabled: !player.exists, onclick: () => player.toggle() }, s("svg", { viewBox: "0 0 18 18", "aria-hidden": "true" }, icon));
  const now = h("span"), problem = h("p", { class: "note", role: "status", hidden: true });
  let frame = 0;
  function refresh() {
    icon.setAttribute("d", player.isPlaying ? "M4 2h4v14H4zM10 2h4v14h-4z" : "M5 2l11 7-11 7z");
    button.setAttribute("aria-label", player.isPlaying ? "Pause" : "Play");
    now.textContent = clock(player.now(), 1);
    problem.hidden = player.error === null;
    problem.textContent = player.error || "";
    chart.place();
    if (player.isPlaying && !frame) {
      frame = requestAnimationFrame(() => { frame = 0; if (player.isPlaying) chart.follow(); refresh(); });
    }
  }
  const sources = player.exists ? Object.keys(view.audio.sources) : [];
  const choices = player.exists && view.lanes.length > 1 && (view.audio.kind === "embedded" || sources.length > 1)
    ? choose("Listen to", (view.audio.kind === "embedded" ? ["both", "inbound", "outbound"] : sources).map((name) => [name, name === "both" ? "Both" : NAMES[name]]), (name) => player.hear(name)) : null;
  if (choices && view.audio.kind === "linked") player.listen = sources[0];
  const speeds = player.exists && choose("Speed", [["1", "1\u00d7"], ["1.5", "1.5\u00d7"], ["2", "2\u00d7"]], (rate) => player.speed(Number(rate)));
  const zoom = h("span", { class: "group push", role: "group", "aria-label": "Zoom" },
    h("button", { type: "button", "aria-label": "Zoom out", onclick: () => chart.zoom(2) }, "\u2212"),
    h("button", { type: "button", onclick: () => chart.show(0, chart.end) }, "Whole call"),
    h("button", { type: "button", "aria-label": "Zoom in", onclick: () => chart.zoom(0.5) }, "+"));
  const [part, parts] = view.part;
  const isAlone = report.views.length === 1;
  page.replaceChildren(
    h("header", { class: "head" },
      h("div", {},
        h("div", { class: "kicker" }, !isAlone && h("a", { href: "#" }, "\u2190 All calls"), h("span", {}, "Call leg ", h("bdi", {}, view.call_leg_id), `, leg ${view.leg}`), parts > 1 && h("span", {}, `Part ${part} of ${parts}`),
          parts > 1 && part > 1 && h("a", { href: `#/${index - 1}` }, "Part before"), parts > 1 && part < parts && h("a", { href: `#/${index + 1}` }, "Next part")),
        h("h1", {}, who(view)),
        h("p", { class: "meta" }, [longMoment(view.started_at), lasting(view.duration_s), view.direction, view.hangup_cause && `ended: ${view.hangup_cause.replaceAll("_", " ")}`].filter(Boolean).map((text) => h("span", {}, h("bdi", {}, text))))),
      verdict(view)),
    tiles(view),
    h("section", { class: "card", "aria-label": "The call over time" },
      h("div", { class: "bar" }, button, h("span", { class: "clock" }, now, h("small", {}, ` / ${clock(view.duration_s, 1)}`)), choices, speeds, zoom),
      view.note && h("p", { class: "note" }, view.note), problem, chart.stage, chart.overview, legend(view, chart),
      h("p", { class: "help" }, "Click to go there. With the timeline in focus: ", h("kbd", {}, "Space"), " plays, ", h("kbd", {}, "\u2190"), " ", h("kbd", {}, "\u2192"), " go 5 s, ", h("kbd", {}, "+"), " ", h("kbd", {}, "\u2212"), " ", h("kbd", {}, "0"), " zoom.")),
    h("div", { class: "columns" },
      h("section", { class: "card" }, h("h2", {}, "Quality and network"), figures(view)),
      h("section", { class: "card long" }, h("h2", {}, "What happened"), happened(view, chart))),
    footer(view),
  );
  document.title = `${view.from || view.to ? `${view.from || "unknown"} \u2192 ${view.to || "unknown"}` : `Call ${(view.call_leg_id || "").slice(0, 8)}`} \u00b7 call report`;
  chart.draw();
  refresh();
  mark(page, { view: index, audio: view.audio ? view.audio.kind : "none", ready: "1" });
  return { player, chart };
}

function choose(label, options, chosen) {
  const buttons = options.map(([value, text], i) => h("button", { type: "button", "aria-pressed": String(i === 0), onclick: (event) => {
    for (const each of buttons) each.setAttribute("aria-pressed", String(each === event.currentTarget));
    chosen(value);
  } }, text));
  return h("span", { class: "group", role: "group", "aria-label": label }, buttons);
}

function tiles(view) {
  const lanes = view.lanes, tracks = lanes.flatMap((lane) => lane.tracks);
  const of = (name) => tracks.map((track) => track[name]).filter(isNumber);
  const tile = (label, figure, unit, say) => h("div", { class: "tile" }, h("dt", {}, label), h("dd", {}, h("div", { class: "figure" }, figure, unit && h("small", {}, unit)), say && h("div", { class: "say" }, say)));
  const all = [];
  if (isNumber(view.mos)) {
    const say = { good: "Good: people are satisfied", fair: "Fair: some are dissatisfied", poor: "Poor: many are dissatisfied" }[view.grade];
    all.push(tile("Speech quality (MOS)", view.mos.toFixed(1), "of 5", h("span", { class: `word ${view.grade}` }, say)));
  }
  if (isNumber(view.loss_ratio)) {
    const places = total(lanes.map((lane) => lane.lost_places));
    const say = view.lost_packets ? `${some(view.lost_packets, "packet")}${places ? ` at ${some(places, "place")}` : ""}` : `all ${grouped(view.packets)} packets came`;
    all.push(tile("Lost on the way", percent(view.loss_ratio), "", say));
  }
  const jitter = of("jitter_mean_ms");
  if (jitter.length) all.push(tile("Jitter", (total(jitter) / jitter.length).toFixed(1), "ms", `at most ${max(of("jitter_max_ms")).toFixed(1)} ms`));
  const drifts = of("drift_ppm");
  if (drifts.length) {
    const most = drifts.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
    all.push(tile("Clock drift", `${Math.abs(most) < 9.95 ? Math.abs(most).toFixed(1) : Math.round(Math.abs(most))}`, "ppm", most === 0 ? "in step" : `a clock runs ${most > 0 ? "fast" : "slow"}`));
  }
  const heard = isHeard(view);
  if (heard) all.push(tile("Both speak", lasting(view.talk_over_s), "", view.talk_over.length ? some(view.talk_over.length, "time") : "nobody interrupted"));
  if (heard) all.push(tile("Nobody speaks", lasting(view.silence_s), "", view.silence.length ? `${some(view.silence.length, "time")}, longest ${lasting(max(view.silence.map(([a, b]) => b - a)))}` : "no long silence"));
  const keys = lanes.flatMap((lane) => lane.dtmf);
  if (keys.length) {
    const digits = keys.sort((a, b) => a.at_s - b.at_s).map((key) => key.digit);
    all.push(tile("Key presses", h("bdi", {}, digits.slice(0, 9).join(" ") + (digits.length > 9 ? " \u2026" : "")), "", some(keys.length, "key")));
  }
  if (heard && view.duration_s > 0) all.push(shares(view));
  return h("dl", { class: "tiles" }, all);
}

function shares(view) {
  const parts = view.lanes.map((lane) => ({ name: NAMES[lane.direction], className: `spoken ${lane.direction}`, share: Math.min(1, lane.speech_s / view.duration_s) }));
  const sum = Math.max(1, total(parts.map((part) => part.share)));
  let x = 0;
  const boxes = parts.map((part) => {
    const box = s("rect", { class: part.className, x: `${100 * x}%`, y: 0, width: `${(100 * part.share) / sum}%`, height: 10 });
    x += part.share / sum;
    return box;
  });
  return h("div", { class: "tile" }, h("dt", {}, "Who speaks"), h("dd", {}, h("div", { class: "shares", role: "img", "aria-label": "Shares of the call's time" }, s("svg", { "aria-hidden": "true" }, boxes)),
    h("div", { class: "say" }, parts.map((part) => `${part.name} ${Math.round(100 * part.share)} %`).join(", "))));
}

function legend(view, chart) {
  const swatch = (...shapes) => s("svg", { viewBox: "0 0 16 12", "aria-hidden": "true" }, shapes);
  const item = (picture, text) => h("li", {}, picture, text);
  const has = (name) => view.lanes.some((lane) => lane[name].length);
  return h("ul", { class: "legend" },
    has("speech") && item(swatch(view.lanes.map((lane, i) => s("g", { class: lane.direction }, s("rect", { class: "speech", x: i * 8, y: 0, width: 7, height: 9 }), s("rect", { class: "spoken", x: i * 8, y: 9, width: 7, height: 3 })))), "speech"),
    view.talk_over.length > 0 && item(swatch(s("rect", { class: "over", x: 0, y: 2, width: 16, height: 8 })), "both speak"),
    view.silence.length > 0 && item(swatch(s("rect", { class: "mute", x: 0, y: 4, width: 16, height: 5 })), "nobody speaks"),
    has("lost") && item(swatch(s("path", { class: "lostmark", d: "M4 1V11M8 1V11" })), "lost packets"),
    has("changes") && item(swatch(s("line", { class: "cut", x1: 8, x2: 8, y1: 0, y2: 12 })), "change of source or codec"),
    has("concealed") && item(swatch(s("rect", { class: "filled", x: 2, y: 0, width: 4, height: 12 }), s("rect", { class: "filled", x: 10, y: 0, width: 3, height: 12 })), "made up for them"),
    has("dtmf") && item(swatch(s("rect", { class: "keybox", x: 2, y: 0, width: 12, height: 12, rx: 3 })), "key press"),
    view.paused.length > 0 && item(swatch(s("rect", { class: "pausebox", x: 0.5, y: 0.5, width: 15, height: 11 })), "recording paused"),
    chart.hasNet && item(swatch(s("rect", { class: "lossbar", x: 3, y: 3, width: 4, height: 9 }), s("rect", { class: "lossbar", x: 9, y: 6, width: 4, height: 6 })), "loss"),
    chart.hasNet && item(swatch(s("path", { class: "jitter", d: "M0 9L5 4L10 7L16 2" })), "jitter"));
}

function figures(view) {
  const lanes = view.lanes;
  const worst = (lane, name) => { const all = lane.tracks.map((t) => t[name]).filter(isNumber); return all.length ? max(all, -Infinity) : null; };
  const least = (lane, name) => { const all = lane.tracks.map((t) => t[name]).filter(isNumber); return all.length ? Math.min(...all) : null; };
  const sum = (lane, name) => { const all = lane.tracks.map((t) => t[name]).filter(isNumber); return all.length ? total(all) : null; };
  const texts = (lane, name) => [...new Set(lane.tracks.map((t) => t[name]).filter((v) => v !== null && v !== undefined))].join(", ") || null;
  const count = (name) => (lane) => { const n = sum(lane, name); return n === null ? null : grouped(n); };
  const drift = (lane) => { const all = lane.tracks.map((t) => t.drift_ppm).filter(isNumber); const ppm = all.length ? all.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a)) : null; return ppm === null ? null : Math.abs(ppm) < 0.05 ? "none" : `${Math.abs(ppm).toFixed(1)} ppm ${ppm > 0 ? "fast" : "slow"}`; };
  const score = (name) => (lane) => { const mos = least(lane, name); return mos === null ? null : mos.toFixed(2); };
  const word = (lane) => lane.grade && h("span", { class: `word ${lane.grade}` }, WORDS[lane.grade]);
  const rows = [
    ["In a word", isNumber(view.mos) ? "by the mean opinion score" : "by the loss alone", word],
    ["Mean opinion score", "1 to 4.5, by the E-model (ITU-T G.107)", score("mos")],
    ["With concealment", "as a phone that fills gaps would play it", score("mos_concealed")],
    ["Packets", "that came", (lane) => grouped(lane.packets)],
    ["Lost", "never came, or too late", (lane) => isNumber(lane.loss_ratio) ? `${grouped(lane.lost_packets)} (${percent(lane.loss_ratio)})` : null],
    ["Longest loss", "packets in a row", (lane) => { const n = max(lane.tracks.map((t) => t.burst.longest_packets).filter(isNumber), -1); return n < 0 ? null : grouped(n); }],
    ["Late", "came after their time", count("late")],
    ["Out of order", "came after a later one, in time", count("reordered")],
    ["Duplicates", null, count("duplicate")],
    ["Jitter", "how unevenly packets arrive: mean, most", (lane) => { const a = worst(lane, "jitter_mean_ms"), b = worst(lane, "jitter_max_ms"); return a === null ? null : `${a.toFixed(1)} ms, ${(b === null ? a : b).toFixed(1)} ms`; }],
    ["Clock drift", "the sender's clock against ours", drift],
    ["Lost at the far end", "as it reports by RTCP", (lane) => { const ratio = worst(lane, "fraction_lost"); return ratio === null ? null : percent(ratio); }],
    ["Round trip", "by RTCP", (lane) => { const ms = worst(lane, "round_trip_ms"); return ms === null ? null : `${ms.toFixed(0)} ms`; }],
    ["Speech", "of the call's time", (lane) => isHeard(view) ? `${lasting(lane.speech_s)} (${Math.round((100 * lane.speech_s) / Math.max(view.duration_s, 0.1))} %)` : null],
    ["Gaps", "silence not sent, and loss", (lane) => { const gaps = sum(lane, "silence_s"); return gaps === null ? null : lasting(gaps); }],
    ["Codec", null, (lane) => { const rate = texts(lane, "sample_rate_hz"); return texts(lane, "codec") && `${texts(lane, "codec")}${rate ? `, ${rate} Hz` : ""}`; }],
    ["Segments", "gaps too long to fill begin a new one", (lane) => (lane.tracks.length > 1 ? grouped(lane.tracks.length) : null)],
    ["Sender restarts", "another source, or its numbers began anew", (lane) => (sum(lane, "resets") ? grouped(sum(lane, "resets")) : null)],
    ["From", null, (lane) => texts(lane, "source")],
  ];
  return h("div", { class: "figures" }, h("table", {},
    h("thead", {}, h("tr", {}, h("td"), lanes.map((lane) => h("th", { scope: "col", class: lane.direction }, NAMES[lane.direction])))),
    h("tbody", {}, rows.map(([name, say, value]) => {
      const cells = lanes.map(value);
      return cells.some((cell) => cell !== null && cell !== undefined) && h("tr", {}, h("th", { scope: "row" }, name, say && h("small", {}, say)), cells.map((cell) => h("td", {}, cell === null || cell === undefined ? "\u2013" : cell)));
    }))));
}

const BEGAN = { gap: "behind a gap too long to fill", rate: "at another sample rate" };

function happened(view, chart) {
  const items = [];
  const add = (at, kind, text, small) => items.push({ at, kind, text, small });
  for (const [a, b] of view.talk_over) add(a, "over", "Both speak", `for ${lasting(b - a)}`);
  for (const [a, b] of view.silence) add(a, "", "Nobody speaks", `for ${lasting(b - a)}`);
  for (const mark of view.marks) add(mark.at_s, "pause", { paused: "Recording paused", resumed: "Recording resumed" }[mark.kind] || mark.kind);
  for (const lane of view.lanes) {
    const name = lane.direction;
    for (const key of lane.dtmf) add(key.at_s, "key", `Key ${key.digit} pressed`, [name, key.duration_ms && `${Math.round(key.duration_ms)} ms`, key.kind === "in-band" && "heard in the audio"].filter(Boolean).join(", "));
    for (const track of lane.tracks.slice(1)) add(track.start_s, "cut", "New segment", [name, BEGAN[track.began] || track.began, track.gap_s && lasting(track.gap_s)].filter(Boolean).join(", "));
    for (const { at_s: at, kind, detail } of lane.changes) {
      const text = { source: `Another source, ${detail}`, restart: "The sender began anew", codec: `The codec becomes ${detail}`, hold: "Hold: the sender's clock stands still" }[kind] || kind;
      add(at, "cut", text, kind === "hold" && isNumber(detail) ? `${name}, for ${lasting(detail)}` : name);
    }
    let group = [];
    const close = () => {
      if (group.length) add(group[0], "lost", group.length === 1 ? "Packets lost" : `Packets lost at ${group.length} places`, group.length === 1 ? name : `${name}, within ${lasting(group[group.length - 1] - group[0])}`);
      group = [];
    };
    for (const at of lane.lost) {
      if (group.length && at - group[group.length - 1] > 2) close();
      group.push(at);
    }
    close();
    if (lane.lost_unlisted.length) add(lane.lost_unlisted[0][0], "lost", "Further losses are not listed", name);
  }
  if (!items.length) return h("p", { class: "empty" }, "Nothing out of the ordinary.");
  items.sort((a, b) => a.at - b.at);
  const row = (item) => h("li", {}, h("button", { class: "go", type: "button", onclick: () => chart.seek(item.at) },
    h("span", { class: "at" }, clock(item.at, 1)), h("span", { class: `dot ${item.kind}` }), h("span", {}, h("bdi", {}, item.text), " ", item.small && h("small", {}, h("bdi", {}, item.small)))));
  const list = h("ul", { class: "happened" }, items.slice(0, 100).map(row));
  const more = items.length > 100 && h("button", { class: "more", type: "button", onclick: () => { list.append(...items.slice(100).map(row)); more.remove(); } }, `Show all ${grouped(items.length)}`);
  return [list, more];
}

function footer(view) {
  const files = view ? view.files : [];
  return h("footer", {}, files.length > 0 && h("p", {}, "Recorded as ", files.flatMap((name, i) => [i ? ", " : "", h("bdi", {}, name)])),
    h("p", {}, `Made by strep ${report.version} on ${longMoment(report.made_at)}.`));
}

// ---- all calls -----------------------------------------------------------------------------------

function renderIndex() {
  const views = report.views;
  const count = h("span", { role: "status" });
  const rows = views.map((view, index) => ({ text: [view.from, view.to, view.call_leg_id, view.started_at, view.grade].join(" ").toLowerCase(), row: callRow(view, index) }));
  const filter = (event) => {
    const words = event.currentTarget.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { text, row } of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = words.length ? `${grouped(shown)} of ${some(views.length, "recording")}` : "";
  };
  const poor = views.filter((view) => view.grade === "poor").length;
  page.replaceChildren(
    h("header", { class: "head" }, h("div", {}, h("div", { class: "kicker" }, "Call report"), h("h1", {}, h("bdi", {}, report.title)),
      h("p", { class: "meta" }, h("span", {}, some(views.length, "recording")), h("span", {}, `${lasting(total(views.map((view) => view.duration_s)))} in all`), h("span", {}, "times in UTC"), poor > 0 && h("span", {}, `${grouped(poor)} of poor quality`)))),
    h("section", { class: "card" }, h("div", { class: "tools" }, h("input", { type: "search", placeholder: "A number, an id, a date, or a word such as poor", "aria-label": "Filter the calls", oninput: filter }), count),
      h("div", { class: "calls" }, rows.map(({ row }) => row))),
    footer(null));
  document.title = `${report.title} \u00b7 call report`;
  mark(page, { view: "index", calls: rows.length, audio: "", ready: "1" });
}

function callRow(view, index) {
  const scale = loudest(view), end = Math.max(view.duration_s, 0.1);
  const spark = s("svg", { viewBox: "0 0 240 30", preserveAspectRatio: "none", "aria-hidden": "true" }, view.lanes.map((lane) => s("path", { class: `body ${lane.direction}`, d: outlines(lane.waves, 0, end, 240, 30, scale, 2).peak })));
  const [part, parts] = view.part;
  return h("a", { href: `#/${index}` },
    h("span", { class: "when" }, shortMoment(view.started_at)),
    h("span", { class: "who" }, who(view), h("small", {}, [view.direction, parts > 1 && `part ${part} of ${parts}`, view.leg !== "A" && `leg ${view.leg}`].filter(Boolean).join(", "))),
    h("span", { class: "long" }, clock(view.duration_s)), h("span", { class: "spark" }, spark),
    h("span", { class: "mark" }, verdict(view, true)),
    h("span", { class: "loss" }, isNumber(view.loss_ratio) ? `${percent(view.loss_ratio)} lost` : ""));
}

// ---- which of them ---------------------------------------------------------------------------------

let shown = null;
function route() {
  if (shown) shown.player.stop();
  shown = null;
  const match = /^#\/(\d+)$/.exec(location.hash);
  const index = report.views.length === 1 ? 0 : match ? Number(match[1]) : -1;
  if (report.views[index]) shown = renderCall(report.views[index], index);
  else renderIndex();
  window.scrollTo(0, 0);
}
window.addEventListener("hashchange", route);
window.addEventListener("keydown", (event) => {
  const isBody = event.target === document.body;
  if (isBody && shown && event.key === " " && shown.player.exists) {
    event.preventDefault();
    shown.player.toggle();
  }
});
route();
