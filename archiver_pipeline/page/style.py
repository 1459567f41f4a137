"""How the page looks: on a desk, on a phone, in the dark, and on paper.

The shades are one hue from light to dark (in the dark from dark to light), and what stands out is vermilion with a
mark: Okabe and Ito's palette ("Color Universal Design", 2008), which is told apart with any kind of sight.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --card: #f4f6f8; --ink: #16202a; --soft: #4d5965; --line: #d3dae1; --link: #0a58a8;
  --good: #00694d; --bad: #b3400a; --warn: #7d5600; --bar: #2c6fad;
  --l1: #dcebf8; --l2: #b2d3ee; --l3: #7eb4e0; --l4: #2c6fad; --l5: #12487e;
  --on1: #16202a; --on2: #16202a; --on3: #16202a; --on4: #ffffff; --on5: #ffffff; --on-bad: #ffffff; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #10161c; --card: #1a232c; --ink: #e6ecf2; --soft: #a9b5c1; --line: #34414e; --link: #7fbcf5;
  --good: #4fd1a5; --bad: #ff9a66; --warn: #f0bd4e; --bar: #69aee8;
  --l1: #16304a; --l2: #1d4468; --l3: #27608f; --l4: #78b6ea; --l5: #b5dbfa;
  --on1: #e6ecf2; --on2: #e6ecf2; --on3: #ffffff; --on4: #10161c; --on5: #10161c; --on-bad: #10161c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
header, main, footer { max-width: 72rem; margin: 0 auto; padding: 0 1rem; }
header { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; align-items: baseline; padding-top: 1rem;
  color: var(--soft); }
header h1 { font-size: 1rem; margin: 0; color: var(--ink); }
nav { display: flex; gap: 1rem; margin-left: auto; }
nav a { padding: .25rem 0; }
a { color: var(--link); }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; max-width: 60rem; }
ul { padding-left: 1.2rem; margin: .4rem 0; }
code { font: .92em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
td, th, dd, li, p, h3 { overflow-wrap: anywhere; }
.verdict { display: flex; gap: .8rem; align-items: flex-start; margin: 1rem 0 .5rem; padding: .9rem 1rem;
  border-left: .5rem solid var(--soft); background: var(--card); font-size: 1.3rem; line-height: 1.35;
  font-weight: 600; }
.verdict p { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.verdict.ok { border-color: var(--good); } .verdict.ok .mark { color: var(--good); }
.verdict.warning { border-color: var(--warn); } .verdict.warning .mark { color: var(--warn); }
.verdict.fault { border-color: var(--bad); } .verdict.fault .mark { color: var(--bad); }
.concerns { list-style: none; margin: 0; padding: 0; }
.concerns li { padding: .7rem 1rem; border-left: .5rem solid var(--line); margin: .5rem 0; background: var(--card); }
.concerns li.fault { border-color: var(--bad); } .concerns li.warning { border-color: var(--warn); }
.concerns h3 { margin: 0; } .concerns p { margin: .15rem 0; }
.concerns .kind { font-weight: 700; } .fault > h3 .kind { color: var(--bad); }
.warning > h3 .kind { color: var(--warn); }
.do::before { content: "→ "; }
.soft, figcaption, caption, .nothing, .note, dt { color: var(--soft); }
.old { color: var(--warn); font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .5rem; margin: 1rem 0; }
.figures div { background: var(--card); padding: .5rem .8rem; }
.figures dt { font-size: .85rem; } .figures dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.about { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: .4rem 1.5rem; margin: 0; }
.about dt { font-size: .85rem; } .about dd { margin: 0; }
details { margin: .6rem 0; } summary { cursor: pointer; padding: .3rem 0; color: var(--link); }
details dl div { display: flex; gap: 1rem; } details dd { margin: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: .85rem; padding: .2rem 0; }
.rows { width: 100%; margin: .4rem 0; }
.rows th, .rows td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0;
  border-bottom: 1px solid var(--line); font-size: .92rem; }
.rows thead th { color: var(--soft); font-weight: 600; font-size: .85rem; overflow-wrap: normal; }
.rows .num { text-align: right; white-space: nowrap; }
.rows th[scope=row] { font-weight: 600; min-width: 8rem; } .rows td { min-width: 5.5rem; }
.spark { width: 7.5rem; height: 1.5rem; display: block; }
.spark polyline { fill: none; stroke: var(--bar); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.spark polygon { fill: var(--l1); stroke: none; }
.chart { margin: .4rem 0; } .chart figcaption { font-size: .85rem; margin-bottom: .4rem; }
.plot { display: flex; gap: .5rem; height: 9rem; }
.plot svg { flex: 1; min-width: 0; height: 100%; }
.scale { display: flex; flex-direction: column; justify-content: space-between; text-align: right;
  min-width: 2.6rem; }
.scale, .times { font-size: .8rem; line-height: 1; color: var(--soft); font-variant-numeric: tabular-nums; }
.times { display: flex; justify-content: space-between; padding: .4rem 0 0 3.1rem; }
.bars rect { fill: var(--bar); } .bars rect:hover { fill: var(--ink); }
.grid line { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.wide { overflow-x: auto; }
.heat { width: 100%; border-collapse: separate; border-spacing: 2px; table-layout: fixed; font-size: .75rem; }
.heat th { font-weight: 400; color: var(--soft); padding: 0; overflow-wrap: normal; white-space: nowrap; }
.heat th:first-child { width: 5.6rem; text-align: left; white-space: nowrap; }
.heat td, .swatch { text-align: center; height: 1.75rem; padding: 0; line-height: 1; white-space: nowrap;
  overflow-wrap: normal; }
.l0 { background: var(--card); color: var(--soft); }
.l1 { background: var(--l1); color: var(--on1); } .l2 { background: var(--l2); color: var(--on2); }
.l3 { background: var(--l3); color: var(--on3); } .l4 { background: var(--l4); color: var(--on4); }
.l5 { background: var(--l5); color: var(--on5); }
.ahead { background: none; }
.open { outline: 1px dashed currentColor; outline-offset: -3px; }
.due { outline: 2px solid currentColor; outline-offset: -3px; }
.trouble { background: var(--bad); color: var(--on-bad); font-weight: 700; }
.trouble b { margin-right: .15em; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1rem; font-size: .85rem;
  color: var(--soft); }
.legend li { display: flex; gap: .4rem; align-items: center; }
.swatch { display: inline-flex; width: 1.75rem; height: 1.25rem; align-items: center; justify-content: center; }
footer { padding: 2rem 1rem; color: var(--soft); font-size: .85rem; }
#lost { display: none; } #lost.on { display: flex; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
@media (max-width: 44rem) {
  nav { margin-left: 0; flex-wrap: wrap; }
  .verdict { font-size: 1.15rem; }
  .figures { grid-template-columns: 1fr 1fr; }
  .rows thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .rows, .rows tbody, .rows tr, .rows th, .rows td, .rows caption { display: block; }
  .rows tr { padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .rows th, .rows td { border: 0; padding: .1rem 0; }
  .rows td, .rows .num { display: flex; gap: 1rem; justify-content: space-between; text-align: right;
  white-space: normal; }
  .rows td::before { content: attr(data-head); color: var(--soft); flex: none; text-align: left; }
  .rows td > *, .rows td { min-width: 0; }
  .heat { border-spacing: 1px; } .heat thead th { font-size: .65rem; }
  .heat thead th:nth-child(3n) , .heat thead th:nth-child(3n + 1) { font-size: 0; }
  .heat th:first-child { width: 2.6rem; } .heat tbody th .year { display: none; }
  .heat thead th:first-child { font-size: 0; }
  .heat td { font-size: 0; height: 1.5rem; } .heat td b { font-size: .75rem; margin: 0; }
  .heat .empty { font-size: .7rem; }
  .times span:nth-child(even) { display: none; }
}
@media print {
  :root { --paper: #ffffff; --card: #ffffff; --ink: #000000; --soft: #333333; --line: #999999; --link: #000000; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  body { font-size: 11pt; } nav, footer { display: none; } section, tr, li { break-inside: avoid; }
}
"""
"""The style sheet; the page's policy names its hash, so that no other one counts."""
