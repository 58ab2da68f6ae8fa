"""The style sheet of a report: light and dark, phone and desk, and on paper.

The colours of series are those of Okabe and Ito, which colour-blind people can tell apart, made
lighter for dark paper.
"""

STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --card: #f5f6f8; --ink: #1d2430; --soft: #566072; --rule: #d9dde4;
  --good: #00684a; --bad: #a8321a; --tint: #fff3ea; --accent: #0072b2;
  --s0: #6b7280; --s1: #0072b2; --s2: #d55e00; --s3: #008a62; --s4: #b0578d; --s5: #8a6d00; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #12161c; --card: #1b212a; --ink: #e6e9ee; --soft: #a3adbb; --rule: #333c49;
  --good: #4cc9a0; --bad: #ff9b80; --tint: #2e211b; --accent: #6cbcf0;
  --s0: #a1a9b6; --s1: #56b4e9; --s2: #f08a3c; --s3: #33c79b; --s4: #e39cc6; --s5: #e0c030; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.25rem 1rem 4rem; max-width: 70rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0.5rem 0; letter-spacing: -0.01em; }
section:only-of-type { border-top: 0; margin-top: 0; padding-top: 0; }
h2 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 0.25rem; }
h3 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
h4 { font-size: 1rem; margin: 1.25rem 0 0.5rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
a { color: var(--accent); }
section { margin-top: 2.5rem; padding-top: 1.5rem; border-top: 1px solid var(--rule); }
.soft, .where { color: var(--soft); }
.where { font-size: 0.85rem; margin: 0; overflow-wrap: anywhere; }
code, pre, .code { font: 0.85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
nav ul { margin: 0.5rem 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: 0.5rem; }
nav a { display: inline-block; padding: 0.3rem 0.75rem; border: 1px solid var(--rule);
  border-radius: 1rem; text-decoration: none; }
.note { border-left: 4px solid var(--bad); background: var(--tint); padding: 0.5rem 0.75rem;
  margin: 0.75rem 0; border-radius: 0 6px 6px 0; }
.note ul { margin: 0.25rem 0; padding-left: 1.25rem; }
.tiles { display: grid; gap: 0.75rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
.tile { background: var(--card); border-radius: 8px; padding: 0.75rem 1rem;
  border-left: 4px solid var(--c, var(--rule)); }
.tile .big { font-size: 2rem; font-weight: 650; line-height: 1.15; letter-spacing: -0.02em; }
.tile .big small { font-size: 0.95rem; font-weight: 400; color: var(--soft); letter-spacing: 0; }
.tile .who { font-weight: 600; }
.tile .rest { color: var(--soft); font-size: 0.875rem; }
dl { display: grid; gap: 0.25rem 2rem; margin: 0.75rem 0; font-size: 0.9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
dl div { display: flex; gap: 0.75rem; border-bottom: 1px solid var(--rule); padding: 0.25rem 0; }
dt { color: var(--soft); flex: 0 0 7rem; }
dd { margin: 0; min-width: 0; }
.plots { display: grid; gap: 1.5rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; font-size: 0.95rem; line-height: 1.35; margin-bottom: 0.35rem; }
figcaption small { display: block; font-weight: 400; color: var(--soft); }
svg.plot { display: block; width: 100%; max-width: 30rem; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; font-size: 0.85rem; }
.legend span { display: inline-flex; align-items: center; gap: 0.35rem; }
.s0 { --c: var(--s0); --d: 2 3; } .s1 { --c: var(--s1); --d: none; }
.s2 { --c: var(--s2); --d: 8 3; } .s3 { --c: var(--s3); --d: 8 3 2 3; }
.s4 { --c: var(--s4); --d: 4 2; } .s5 { --c: var(--s5); --d: 12 3 2 3 2 3; }
svg text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  fill: var(--soft); }
svg text.name, svg text.value { font-size: 12.5px; fill: var(--ink); }
svg text.name { font-weight: 600; }
svg .remark { font-weight: 400; fill: var(--soft); }
.grid { stroke: var(--rule); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.mark { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-dasharray: var(--d);
  stroke-linejoin: round; }
.area { fill: var(--c); opacity: 0.13; }
.band { fill: var(--c); opacity: 0.35; }
.dot { fill: var(--c); stroke: var(--paper); stroke-width: 1; }
.whisker { stroke: var(--c); stroke-width: 2; opacity: 0.55; }
/* A shadow at the side where there is more to scroll to. */
.scroll { overflow-x: auto; margin: 0.75rem 0; background:
  linear-gradient(to right, var(--paper) 40%, transparent) left / 2.5rem 100% local no-repeat,
  linear-gradient(to left, var(--paper) 40%, transparent) right / 2.5rem 100% local no-repeat,
  linear-gradient(to right, var(--rule), transparent) left / 0.75rem 100% scroll no-repeat,
  linear-gradient(to left, var(--rule), transparent) right / 0.75rem 100% scroll no-repeat; }
table { border-collapse: collapse; overflow-wrap: normal; font-size: 0.875rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.35rem 0.6rem; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom;
  white-space: normal; }
tbody th { font-weight: 600; }
td.words { text-align: left; white-space: normal; min-width: 14rem; }
.cards { display: grid; gap: 0.75rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.card { background: var(--card); border-radius: 8px; padding: 0.75rem; min-width: 0; }
.card header { display: flex; justify-content: space-between; gap: 0.5rem; font-weight: 600; }
.card .rest { font-size: 0.8125rem; color: var(--soft); margin: 0.4rem 0 0; }
.missed, .bad { color: var(--bad); } .reached, .fine { color: var(--good); }
.ends { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 0.4rem;
  margin: 0.5rem 0; }
.ends div { font-size: 0.75rem; color: var(--soft); }
.ends img, .between img { display: block; width: 100%; height: auto; border-radius: 4px; }
.between { display: grid; grid-template-columns: repeat(6, 1fr); gap: 0.25rem;
  font-size: 0.6875rem; color: var(--soft); text-align: center; }
details { margin: 0.75rem 0; border: 1px solid var(--rule); border-radius: 8px;
  padding: 0.5rem 0.75rem; }
summary { cursor: pointer; font-weight: 500; }
pre { margin: 0.5rem 0; overflow-x: auto; }
.chart { width: fit-content; max-width: 100%; overflow-x: auto; border-radius: 6px;
  background: #fff; margin: 0.75rem 0; }
.chart img { display: block; }
@media (max-width: 30rem) { dt { flex-basis: 6.5rem; } h1 { font-size: 1.5rem; } }
@media print { section, .card, figure { break-inside: avoid; } section { break-before: page; } }
""".strip()
