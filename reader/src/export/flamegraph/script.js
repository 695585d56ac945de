// Zooms into the box that is clicked; finds boxes by a part of their names.
(function () {
  "use strict";
  var boxes = Array.prototype.map.call(document.querySelectorAll(".box"), function (group) {
    var rect = group.querySelector("rect");
    return {
      group: group,
      rect: rect,
      text: group.querySelector("text"),
      tip: group.querySelector("title").textContent,
      name: group.querySelector("title").textContent.split("\n")[0],
      value: Number(group.dataset.v),
      size: group.dataset.size,
      x: Number(rect.getAttribute("x")),
      y: Number(rect.getAttribute("y")),
      width: Number(rect.getAttribute("width")),
    };
  });
  var left = 10, whole = 1180, slack = 0.02;
  var reset = document.getElementById("reset");
  var search = document.getElementById("search");
  var matched = document.getElementById("matched");
  var details = document.getElementById("details");

  function fit(box, width) {
    var room = Math.floor((width - 6) / 6.62);
    var letters = Array.from(box.name);
    if (letters.length + 3 + box.size.length <= room) return box.name + " · " + box.size;
    if (letters.length <= room) return box.name;
    return room < 3 ? "" : letters.slice(0, room - 1).join("") + "…";
  }

  function place(box, x, width, outer) {
    box.group.style.display = "";
    box.group.classList.toggle("outer", outer);
    box.rect.setAttribute("x", x);
    box.rect.setAttribute("width", Math.max(width, 0.1));
    box.text.setAttribute("x", x + 3);
    box.text.textContent = fit(box, width);
  }

  function zoom(to) {
    var scale = whole / to.width;
    boxes.forEach(function (box) {
      var end = box.x + box.width;
      if (box.y < to.y && box.x <= to.x + slack && end >= to.x + to.width - slack) {
        place(box, left, whole, true);
      } else if (box.y >= to.y && box.x >= to.x - slack && end <= to.x + to.width + slack) {
        place(box, left + (box.x - to.x) * scale, box.width * scale, false);
      } else {
        box.group.style.display = "none";
      }
    });
    reset.setAttribute("visibility", "visible");
  }

  function unzoom() {
    boxes.forEach(function (box) { place(box, box.x, box.width, false); });
    reset.setAttribute("visibility", "hidden");
  }

  function find(text) {
    var wanted = (text || "").toLowerCase(), found = 0, covered = [], sum = 0, all = 0;
    boxes.forEach(function (box) {
      var is = wanted !== "" && box.tip.toLowerCase().indexOf(wanted) >= 0;
      box.group.classList.toggle("match", is);
      if (box.y === boxes[0].y) all += box.value;
      if (!is) return;
      found += 1;
      // What stands under another match is in that one's sum.
      var inside = covered.some(function (other) {
        return box.x >= other.x - slack && box.x + box.width <= other.x + other.width + slack;
      });
      if (!inside) { covered.push(box); sum += box.value; }
    });
    matched.textContent = wanted === "" ? "" :
      found + " found, " + (all > 0 ? (100 * sum / all).toFixed(1) : "0") + " % of the width";
  }

  function ask() {
    var text = window.prompt("Part of a function, file or library", "");
    if (text !== null) find(text);
  }

  boxes.forEach(function (box) {
    box.group.addEventListener("click", function () { zoom(box); });
    box.group.addEventListener("mouseenter", function () {
      details.textContent = box.tip.split("\n").join("   ");
    });
    box.group.addEventListener("mouseleave", function () { details.textContent = ""; });
  });
  reset.addEventListener("click", unzoom);
  search.addEventListener("click", ask);
  document.addEventListener("keydown", function (event) {
    if (event.key === "/") { event.preventDefault(); ask(); }
    if (event.key === "Escape") { unzoom(); find(""); }
  });
})();
