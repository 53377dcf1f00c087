// SPDX-License-Identifier: Apache-2.0
// The style sheet of report.html.
#pragma once

namespace perennial::continual::report {

// Colours are variables: light, dark as the reader prefers it on a screen, light again in print.
// The series' colours are told apart with the common kinds of colour blindness, in this order.
inline constexpr const char* kStyle = R"css(
:root{color-scheme:light;--page:#f6f7f8;--card:#fff;--ink:#16191d;--soft:#5a6370;--line:#d9dde2;
--heat:#143f88;--on:#fff;--own:#16191d;
--s1:#2a78d6;--s2:#eb6834;--s3:#15996a;--s4:#c98500;--s5:#d5558f;--s6:#4a3aa7;--s7:#e34948;--s8:#5f7d1e}
@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark;--page:#111417;--card:#1a1e23;
--ink:#e8eaed;--soft:#a0a8b3;--line:#333a42;--heat:#6ea8f5;--on:#0c1420;--own:#e8eaed;
--s1:#5b9bea;--s2:#f08a5d;--s3:#35b98a;--s4:#e0a72e;--s5:#e88ab5;--s6:#a99bf0;--s7:#f0807f;--s8:#a5c25a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif}
main{max-width:1180px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:1.5rem;line-height:1.2;margin:8px 0 4px}
h2{font-size:1.1rem;margin:32px 0 10px}
p{margin:6px 0;max-width:75ch}
.soft,.note{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:10px;margin:16px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.tile b{display:block;font-size:1.35rem;font-weight:600;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:.82rem;overflow-wrap:anywhere}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr));gap:14px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:12px;min-width:0;break-inside:avoid}
figcaption{font-weight:600;margin-bottom:8px;overflow-wrap:anywhere}
figcaption .note{display:block;font-weight:400;font-size:.82rem}
.scroll{overflow-x:auto;max-width:100%}
figure svg{display:block;width:100%;height:auto}
svg text{font-size:11px;fill:var(--soft);font-variant-numeric:tabular-nums}
svg .label{fill:var(--ink)}
.grid{stroke:var(--line);stroke-width:1}
.axis{stroke:var(--soft);stroke-width:1}
.mark{stroke:var(--line);stroke-width:1;stroke-dasharray:2 3}
.error{stroke:var(--ink);stroke-width:1.3}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.cell{fill:var(--heat)}
.own{stroke:var(--own);stroke-width:1.4}
svg text.on{fill:var(--on)}
svg .cell+text{fill:var(--ink)}
svg .cell+text.on{fill:var(--on)}
.s1{stroke:var(--s1)}.s2{stroke:var(--s2)}.s3{stroke:var(--s3)}.s4{stroke:var(--s4)}
.s5{stroke:var(--s5)}.s6{stroke:var(--s6)}.s7{stroke:var(--s7)}.s8{stroke:var(--s8)}
.bar{stroke:none}
.bar.s1,.dot.s1{fill:var(--s1)}.bar.s2,.dot.s2{fill:var(--s2)}.bar.s3,.dot.s3{fill:var(--s3)}
.bar.s4,.dot.s4{fill:var(--s4)}.bar.s5,.dot.s5{fill:var(--s5)}.bar.s6,.dot.s6{fill:var(--s6)}
.bar.s7,.dot.s7{fill:var(--s7)}.bar.s8,.dot.s8{fill:var(--s8)}
.dot{stroke:var(--card);stroke-width:.6}
.d1{stroke-dasharray:6 3}.d2{stroke-dasharray:2 2}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:8px 0 0;padding:0;font-size:.82rem}
.legend li{overflow-wrap:anywhere}
figure svg.key{display:inline-block;width:18px;height:8px;margin-right:6px;vertical-align:middle}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums;background:var(--card)}
th,td{padding:5px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
.meaning{text-align:left;white-space:normal;min-width:8em}
h3{font-size:.9rem;margin:14px 0 4px;color:var(--soft)}
th{font-weight:600}
.table{overflow-x:auto;border:1px solid var(--line);border-radius:8px;max-width:max-content}
dl{columns:3 260px;column-gap:28px;font-size:.84rem;margin:8px 0}
dl div{display:flex;justify-content:space-between;gap:12px;border-bottom:1px solid var(--line);
padding:2px 0;break-inside:avoid}
dt{color:var(--soft)}dd{margin:0;text-align:right;overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 12px;margin:8px 0;
font-size:.82rem;white-space:pre-wrap;overflow-wrap:anywhere}
@media print{@page{margin:14mm}html{font-size:11px}body{background:#fff;font-size:11px}
main{padding:0 2px;max-width:none}
.figures{grid-template-columns:repeat(2,1fr)}.scroll,.table{overflow:visible}
figure svg{min-width:0!important}h2{break-after:avoid}tr,pre,.tile{break-inside:avoid}
th,td{padding:2px 5px;font-size:9px}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
)css";

}  // namespace perennial::continual::report
