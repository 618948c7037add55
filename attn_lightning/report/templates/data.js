// What the page carries, and how it is read: blocks are inflated when somebody looks at them.

const data = JSON.parse($("data").textContent);
$("data").remove();

const TYPES = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array };
const inflated = new Map();

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** The bytes of a block; each is inflated once, and its packed form forgotten. */
function bytesOf(key) {
  if (!inflated.has(key)) {
    const stream = new Blob([fromBase64(data.blocks[key])]).stream().pipeThrough(new DecompressionStream("deflate"));
    inflated.set(key, new Response(stream).arrayBuffer());
    data.blocks[key] = null;
  }
  return inflated.get(key);
}

/** What a reference to a block stands for: a typed array, or JSON. */
async function load(reference) {
  const bytes = await bytesOf(reference.block);
  if (reference.type !== "json") return new TYPES[reference.type](bytes);
  if (!reference.parsed) reference.parsed = JSON.parse(new TextDecoder().decode(bytes));
  return reference.parsed;
}

const FULL = 127;

/** The documents of one run. */
class Documents {
  static #loaded = new Map();

  /** Those of the run with this number on the page; every run is unpacked once. */
  static of(place) {
    if (!Documents.#loaded.has(place)) Documents.#loaded.set(place, Documents.#unpack(place));
    return Documents.#loaded.get(place);
  }

  static async #unpack(place) {
    const run = data.runs[place], packed = run.documents, made = new Documents();
    const names = ["rows", "texts", "labels", "predictions", "probabilities", "lengths", "gaps", "widths"];
    const corpus = data.corpora[packed.corpus];
    const [strings, questions, ...arrays] = await Promise.all([load(corpus.texts), corpus.questions && load(corpus.questions), ...names.map((part) => load(packed[part]))]);
    made.strings = strings;
    made.questions = questions;
    names.forEach((part, index) => { made[part] = arrays[index]; });
    made.place = place;
    made.run = run;
    made.corpus = packed.corpus;
    made.segments = packed.segments;
    made.classes = packed.classes;
    made.count = made.rows.length;
    made.first = new Uint32Array(made.count + 1);
    for (let i = 0; i < made.count; i++) made.first[i + 1] = made.first[i] + made.lengths[i];
    made.packed = packed.explanations;
    made.explanations = Object.keys(packed.explanations);
    made.weights = {};
    const { rationale } = packed;
    const [marks, known] = await Promise.all([
      rationale && load(rationale.marks), rationale && load(rationale.known), ...["attention", "gradient"].map((one) => made.need(one))]);
    made.marks = marks;
    made.known = known;
    made.candidates = packed.candidates && await load(packed.candidates);
    made.byText = new Map();
    for (let i = 0; i < made.count; i++) made.byText.set(made.texts[i], i);
    return made;
  }

  /** Unpack an explanation; there may be many, and few are looked at. */
  async need(explainer) {
    if (!(explainer in this.packed) || explainer in this.weights) return;
    const { steps, scales } = this.packed[explainer];
    const [unpackedSteps, unpackedScales] = await Promise.all([load(steps), load(scales)]);
    this.weights[explainer] = { steps: unpackedSteps, scales: unpackedScales };
  }

  text(i) { return this.strings[this.texts[i]]; }

  /** The second text of a pair, or null. */
  question(i) { return this.questions ? this.questions[this.texts[i]] : null; }

  /** Name of a class. */
  className(label) { return label < 0 ? "no label" : this.run.classes[label] ?? `class ${label}`; }

  probability(i, label) { return this.probabilities[i * this.classes + label] / 65535; }

  /** Whether a class can be the answer. */
  possible(i, label) { return !this.candidates || this.candidates[i * this.classes + label] === 1; }

  confidence(i) { return this.probability(i, this.predictions[i]); }

  labelled(i) { return this.labels[i] >= 0; }

  wrong(i) { return this.labelled(i) && this.labels[i] !== this.predictions[i]; }

  /** Steps of an explanation, -127 to 127, a number per token; null where the example was not explained. */
  steps(i, explainer) {
    const weights = this.weights[explainer];
    if (!weights || Number.isNaN(weights.scales[i])) return null;
    return weights.steps.subarray(this.first[i], this.first[i + 1]);
  }

  /** The weight of one step. */
  scale(i, explainer) { return this.weights[explainer].scales[i] / FULL; }

  marksOf(i) {
    return this.marks && this.known[i] ? this.marks.subarray(this.first[i], this.first[i + 1]) : null;
  }

  /** Start and end of every token. */
  tokens(i) {
    const found = [];
    const length = this.text(i).length;
    let at = 0;
    for (let t = this.first[i]; t < this.first[i + 1]; t++) {
      const start = Math.min(length, Math.max(0, at + this.gaps[t]));
      at = Math.min(length, start + this.widths[t]);
      found.push([start, at]);
    }
    return found;
  }

  /** Whether two runs cut the same text into the same tokens. */
  sameTokens(i, other, j) {
    const count = this.lengths[i], a = this.first[i], b = other.first[j];
    if (count !== other.lengths[j]) return false;
    if (this.gaps === other.gaps && this.widths === other.widths && a === b) return true;
    for (let t = 0; t < count; t++) {
      if (this.gaps[a + t] !== other.gaps[b + t] || this.widths[a + t] !== other.widths[b + t]) return false;
    }
    return true;
  }
}

/** Total variation distance of two explanations of one text: the share of the weight that lies on other words. */
function distance(left, right) {
  if (!left || !right || left.length !== right.length) return NaN;
  let sumLeft = 0, sumRight = 0, difference = 0;
  for (let t = 0; t < left.length; t++) { sumLeft += Math.abs(left[t]); sumRight += Math.abs(right[t]); }
  if (!sumLeft || !sumRight) return NaN;
  for (let t = 0; t < left.length; t++) difference += Math.abs(Math.abs(left[t]) / sumLeft - Math.abs(right[t]) / sumRight);
  return difference / 2;
}
