// Bundles the page into src/k2/web/static/: hashed files, an index that names them, the licences of what is inside,
// and a manifest that tells from which sources they were made (tests/page/test_built.py recomputes both digests).
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "src", "k2", "web", "static");
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest("hex");

async function files(folder) {
  const found = [];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.name === "node_modules" || entry.name.startsWith(".")) continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) found.push(...(await files(path)));
    else found.push(path);
  }
  return found;
}

/** sha256 over "<path>\0<sha256 of the file>\n" of every source file, in the order of their paths. */
async function digest() {
  const lines = [];
  for (const path of await files(here)) {
    const name = relative(here, path).split(sep).join("/");
    lines.push(`${name}\0${sha256(await readFile(path))}\n`);
  }
  return sha256(...lines.sort());
}

async function licences(packages) {
  const parts = ["What the page is built from, beside K2's own code, and under which licences.\n"];
  for (const name of [...packages].sort()) {
    const folder = join(here, "node_modules", name);
    const about = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const texts = (await readdir(folder)).filter((file) => /^(licen[cs]e|notice)/i.test(file)).sort();
    parts.push(`${"=".repeat(100)}\n${about.name} ${about.version} (${about.license})\n`);
    for (const file of texts) parts.push((await readFile(join(folder, file), "utf8")).trim() + "\n");
    if (name === "lightweight-charts") parts.push(await readFile(join(here, "notice-lightweight-charts.txt"), "utf8"));
  }
  return parts.join("\n");
}

const result = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx", theme: "src/theme-early.ts", style: "src/styles/index.css", icon: "src/icon.svg" },
  outdir: join(out, "assets"),
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  bundle: true,
  splitting: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  jsx: "automatic",
  jsxImportSource: "preact",
  loader: { ".svg": "copy" },
  metafile: true,
  write: false,
});

const outputs = Object.entries(result.metafile.outputs).map(([path, about]) => ({ path, ...about }));
const named = (source) => {
  const found = outputs.find((output) => output.entryPoint === source);
  return "/assets/" + found.path.split("/").pop();
};
const inside = new Set(
  Object.keys(result.metafile.inputs)
    .map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1])
    .filter(Boolean),
);
const main = outputs.find((output) => output.entryPoint === "src/main.tsx");
const preload = main.imports
  .filter((item) => item.kind === "import-statement")
  .map((item) => `<link rel="modulepreload" href="/assets/${item.path.split("/").pop()}">`)
  .join("\n");
const names = {
  style: named("src/styles/index.css"),
  script: named("src/main.tsx"),
  theme: named("src/theme-early.ts"),
  icon: named("src/icon.svg"),
  preload,
};
const index = (await readFile(join(here, "index.html"), "utf8"))
  .replace(/\{\{(\w+)\}\}/g, (_, name) => names[name])
  .replace(/^\n/gm, "");

const written = new Map(result.outputFiles.map((file) => ["assets/" + file.path.split(sep).pop(), file.contents]));
written.set("index.html", Buffer.from(index));
written.set("THIRD_PARTY_LICENCES.txt", Buffer.from(await licences(inside)));

await rm(join(out, "assets"), { recursive: true, force: true });
await mkdir(join(out, "assets"), { recursive: true });
const manifest = { sources: await digest(), files: {} };
for (const [name, contents] of [...written].sort(([a], [b]) => (a < b ? -1 : 1))) {
  await writeFile(join(out, name), contents);
  manifest.files[name] = sha256(contents);
}
await writeFile(join(out, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");

const scripts = [...written].filter(([name]) => name.endsWith(".js"));
for (const [name, contents] of written) console.log(`${String(contents.length).padStart(8)}  ${name}`);
console.log(`${scripts.reduce((sum, [, contents]) => sum + contents.length, 0)} bytes of JavaScript`);
