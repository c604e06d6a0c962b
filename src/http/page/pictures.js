// Pictures as people have them, made ready to be sent.
//
// A file goes as it is where the server sees in it what the page shows. The server neither turns pictures upright nor
// blends what is transparent, and does not read every format; such a picture is drawn anew here first, and so is a file
// that is larger than it has to be. A note says so.

import { Trouble } from "./api.js";

/** A larger file is drawn anew: no model looks at as many pixels. */
const LARGE_BYTES = 2_000_000;
const LARGE_SIDE = 2048;
const THUMBNAIL_SIDE = 320;

const JPEG = "JPEG";
const PNG = "PNG";
const WEBP = "WebP";
const GIF = "GIF";
const BMP = "BMP";
const TIFF = "TIFF";

/** The format by the first bytes, of those that the server reads. */
export function format(head) {
  const text = String.fromCharCode(...head.subarray(0, 12));
  if (text.startsWith("\xff\xd8\xff")) return JPEG;
  if (text.startsWith("\x89PNG")) return PNG;
  if (text.startsWith("RIFF") && text.endsWith("WEBP")) return WEBP;
  if (text.startsWith("GIF8")) return GIF;
  if (text.startsWith("BM")) return BMP;
  if (text.startsWith("II*\0") || text.startsWith("MM\0*")) return TIFF;
  return undefined;
}

/** How EXIF says that a JPEG is to be turned, 1 to 8; 1: not at all. `head` are the first bytes of the file. */
export function orientation(head) {
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  try {
    for (let at = 2; view.getUint8(at) === 0xff; at += 2 + view.getUint16(at + 2)) {
      if (view.getUint8(at + 1) !== 0xe1 || view.getUint32(at + 4) !== 0x45786966) continue;
      const tiff = at + 10;
      const little = view.getUint16(tiff) === 0x4949;
      const directory = tiff + view.getUint32(tiff + 4, little);
      const entries = view.getUint16(directory, little);
      for (let entry = 0; entry < entries; entry++) {
        const field = directory + 2 + entry * 12;
        if (view.getUint16(field, little) === 0x0112) return view.getUint16(field + 8, little);
      }
    }
  } catch {
    // It ends before it says.
  }
  return 1;
}

/** Whether pixels of a file may be transparent, by its first bytes. */
export function transparent(head, kind) {
  if (kind === PNG) {
    const colour = head[25];
    return colour === 4 || colour === 6 || String.fromCharCode(...head.subarray(0, 2048)).includes("tRNS");
  }
  if (kind === WEBP) {
    const chunk = String.fromCharCode(...head.subarray(12, 16));
    return (chunk === "VP8X" && (head[20] & 0x10) !== 0) || (chunk === "VP8L" && (head[24] & 0x10) !== 0);
  }
  return false;
}

/** `{ name, blob, note }`: what to send of a file. */
export async function ready(file, limits) {
  let head;
  try {
    head = new Uint8Array(await file.slice(0, 128 << 10).arrayBuffer());
  } catch {
    throw new Trouble("The file cannot be read.");
  }
  const kind = format(head);
  const reasons = [];
  if (!kind) reasons.push("its format is not one that the server reads");
  if (kind === JPEG && orientation(head) > 1) reasons.push("it lies on its side, as its EXIF says");
  if (transparent(head, kind)) reasons.push("it is transparent, and was laid on white");
  if (file.size > Math.min(LARGE_BYTES, limits.image_bytes)) reasons.push("it is large");
  if (reasons.length === 0) return { name: file.name, blob: file, note: "" };
  try {
    const blob = await redrawn(file, LARGE_SIDE, kind === PNG && file.size < LARGE_BYTES ? "image/png" : "image/jpeg");
    return { name: file.name, blob, note: `Drawn anew before it was sent: ${reasons.join("; ")}.` };
  } catch {
    // The browser cannot read it either. The server says best what is wrong with it.
    return { name: file.name, blob: file, note: "" };
  }
}

/** A small copy to look at; undefined: the browser cannot read it. */
export async function thumbnail(blob) {
  try {
    return URL.createObjectURL(await redrawn(blob, THUMBNAIL_SIDE, "image/webp"));
  } catch {
    return undefined;
  }
}

async function redrawn(blob, side, type) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const paper = canvas.getContext("2d", { alpha: false });
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, canvas.width, canvas.height);
  paper.imageSmoothingQuality = "high";
  paper.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const made = await new Promise((done) => canvas.toBlob(done, type, 0.92));
  if (!made) throw new Error("nothing was drawn");
  return made;
}

export function base64(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Trouble("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

/** Files of a drop, and pictures in its folders, at most so many. */
export async function dropped(transfer, most) {
  // Entries are gone once the event is over, so all are asked for at once.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [];
  const walk = async (entry, inside) => {
    if (files.length >= most) return;
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      if (!inside || file.type.startsWith("image/")) files.push(file);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (some.length === 0) return;
      for (const one of some) await walk(one, true);
    }
  };
  for (const entry of entries) await walk(entry, false).catch(() => {});
  // What was dragged out of another page may have no entries.
  return entries.length > 0 ? files : [...transfer.files];
}

const SAMPLES = [
  "dog",
  "cat",
  "owl",
  "octopus",
  "pizza",
  "apple",
  "car",
  "bicycle",
  "airplane",
  "rocket",
  "guitar",
  "umbrella",
];

/** Pictures that come with the page: their names, and where they are. */
export const samples = SAMPLES.map((name) => ({ name, url: `page/samples/${name}.webp` }));

export async function sample({ name, url }) {
  const response = await fetch(url);
  if (!response.ok) throw new Trouble("The sample did not arrive.");
  return new File([await response.blob()], `${name}.webp`, { type: "image/webp" });
}
