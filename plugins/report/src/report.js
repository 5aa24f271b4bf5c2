// The report: all data is already there.
"use strict";

const run = JSON.parse(byId("data").textContent);
showProgress(run.facts, run.progress);
showCurves(run.facts, run.curves);
showMatrices(run.facts, run.matrices);
showTimes(run.times, run.progress.elapsed);
showArtifacts(run.artifacts);
showModel(run.facts.model);
showSettings(run.facts);
