"""The words of the project, each in a sentence or two: what `vocabsem explain` says of them."""

TERMS = {
    "artifact": "The stored result of a step: a folder of the store whose files never change once it is committed. "
    "`vocabsem ls` lists them, `vocabsem show KEY` shows one in detail.",
    "budget": "How many settings a search may try for each method on each task (`search.trials`) and over how many "
    "seeds it is fitted. Equal for all methods; a table marks a method that had less.",
    "cached": "Of a step: its artifact is in the store, so it is read and not recomputed. Of a cost: the seconds of "
    "search and fit only, with states and basis already stored.",
    "constant prediction": "A method that predicted one class for every test row in some fit: treat it as not trained, "
    "rather than as worse. The table flags it.",
    "cut prompts": "Prompts longer than the model's window or `encoding.max_tokens` lose tokens of their text from "
    "the left, never of the template. The run prints how many were truncated.",
    "hidden state": "The vector a model has for the token at which the label would follow, in the input space of the "
    "LM head (layer `head`) or after one of its blocks (`layer_01` and so on). Stored once for each row.",
    "key": "The name of a step's result: a hash of the step's name, code version, identity fields and the keys of its "
    "inputs. Equal keys mean equal results on any machine. `vocabsem why KEY` shows its parts.",
    "label words": "The word that represents each label in a task's `words`. Its tokens after the prompt are the rows "
    "of the vocabulary that are compared; `label_tokens` says which of them. With `label_tokens: whole`, zero-shot and "
    "icl score the whole word by its log-likelihood after the prompt.",
    "LM head": "The model's last linear layer, W of v vocabulary rows and d columns: logits are h W^T + b.",
    "run": "A workflow file and the steps it led to. The same steps are the same run; its record is in the store's "
    "`runs` folder.",
    "semantic basis": "For each vocabulary label, the direction in the space of hidden states that represents it: its "
    "row of the pseudoinverse of the LM head, W (W^T W)^-1 (vocabulary-defined semantics, arXiv 2401.16184).",
    "semantic calibration": "A small module trained on stored states, so that a state moves to its label's basis row "
    "(the same paper, section 3.3). Methods `calibration` (ours) and `calibration-paper`.",
    "semantic logits": "Similarities of a hidden state to the basis rows of the label words, used in place of "
    "logits (vocabulary affinity inference, section 3.2). Method `affinity`.",
    "step": "One node of the graph made from a workflow file: its inputs and the code that computes its result. "
    "`vocabsem plan FILE` lists a file's steps and why each would run.",
    "store": "The folder that holds all artifacts and the records of runs: --store, $VOCABSEM_STORE, the file's "
    "`store`, or ./.vocabsem/store.",
    "trial": "One choice of settings, fitted on training rows and scored on validation rows. Test rows are never seen "
    "by a search.",
    "validation rows": "A fifth of the training rows of each class, chosen by hash. Settings are chosen on them, and "
    "training stops early by them.",
    "verdict": "What the paired randomisation test against the `reference_method`, or against the best method, says "
    "after Holm's correction over all comparisons of a run, at 5 %: better, worse, or no difference shown.",
}
