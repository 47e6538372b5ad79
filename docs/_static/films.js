// A film gets buttons and a slider. Without this script it is an animated picture.
"use strict";

const still = matchMedia("(prefers-reduced-motion: reduce)");

for (const film of document.querySelectorAll(".film")) {
  const steps = film.dataset.steps.split(" ");
  const milliseconds = film.dataset.milliseconds.split(" ").map(Number);
  for (const step of steps) new Image().src = step; // so that no step is late
  const picture = film.querySelector("img");
  film.querySelector("source").remove();

  const controls = document.createElement("div");
  controls.className = "film-controls";
  controls.setAttribute("role", "group");
  controls.setAttribute("aria-label", "Film");
  const button = (label, text, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.setAttribute("aria-label", label);
    made.textContent = text;
    made.addEventListener("click", action);
    controls.append(made);
    return made;
  };

  let at = 0;
  let timer = 0;
  const show = (step) => {
    at = (step + steps.length) % steps.length;
    picture.src = steps[at];
    slider.value = at + 1;
    slider.setAttribute("aria-valuetext", `Step ${at + 1} of ${steps.length}`);
    count.textContent = `${at + 1} of ${steps.length}`;
  };
  const wait = () => {
    timer = setTimeout(() => {
      show(at + 1);
      wait();
    }, milliseconds[at]);
  };
  const play = (on) => {
    clearTimeout(timer);
    timer = 0;
    if (on) wait();
    toggle.textContent = on ? "Pause" : "Play";
    toggle.setAttribute("aria-label", on ? "Pause the film" : "Play the film");
  };
  const go = (step) => {
    play(false);
    show(step);
  };

  button("Previous step", "◂", () => go(at - 1));
  const toggle = button("", "", () => play(!timer));
  button("Next step", "▸", () => go(at + 1));
  const slider = document.createElement("input");
  slider.type = "range";
  slider.min = 1;
  slider.max = steps.length;
  slider.setAttribute("aria-label", "Step of the film");
  slider.addEventListener("input", () => go(slider.valueAsNumber - 1));
  const count = document.createElement("span");
  count.setAttribute("aria-hidden", "true"); // the slider says it
  controls.append(slider, count);
  film.append(controls);

  show(0);
  play(!still.matches);
  still.addEventListener("change", () => still.matches && play(false));
}
