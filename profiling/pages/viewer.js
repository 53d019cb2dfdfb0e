"use strict";
const $ = id => document.getElementById(id);
const make = (tag, text, attributes = {}) => { const e = document.createElement(tag); e.textContent = text ?? ""; Object.assign(e, attributes); return e };
const options = (id, values, labels = values) => $(id).append(...values.map((v, i) => make("option", labels[i], { value: v })));
const data = JSON.parse($("data").textContent);

// Shows two of the named shots, { name: { image, note } }; `shots` and `width` are asked for anew at each change.
function viewer(names, first, shots, width, zoom = 1) {
  options("leftname", names); options("rightname", names);
  $("leftname").value = first[0]; $("rightname").value = first[1]; $("zoom").value = zoom;
  const show = () => {
    for (const side of ["left", "right"]) {
      const name = $(side + "name").value, shot = shots()[name];
      $(side).src = shot.image; $(side).alt = `${side}: ${shot.note}`; $(side + "note").textContent = shot.note;
    }
    $("under").style.width = $("stage").style.width = width() * $("zoom").value + "px";
  };
  let part = 50;
  const move = to => {
    part = Math.min(100, Math.max(0, to));
    $("left").style.clipPath = `inset(0 ${100 - part}% 0 0)`; $("handle").style.left = part + "%";
    $("handle").setAttribute("aria-valuenow", Math.round(part));
    $("handle").setAttribute("aria-valuetext", `${Math.round(part)} % of the left picture`);
  };
  const keys = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
  $("handle").onkeydown = e => { if (e.key in keys) { e.preventDefault(); move(part + keys[e.key]) } };
  const point = e => { const box = $("stage").getBoundingClientRect(); move(100 * (e.clientX - box.left) / box.width) };
  $("stage").onpointerdown = e => { e.preventDefault(); $("stage").setPointerCapture(e.pointerId); $("handle").focus({ focusVisible: false }); point(e) };
  $("stage").onpointermove = e => { if (e.buttons) point(e) };
  for (const id of ["leftname", "rightname", "zoom"]) $(id).onchange = show;
  move(50); show();
  return show;
}
