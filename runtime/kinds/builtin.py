"""The kinds that maskrt itself has."""

from collections.abc import Callable

from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.manifest import InteractiveManifest, RefineManifest, SossManifest, TwoStageManifest
from maskrt.runtime.bundle.two_stage_spec import BASELINE, baseline_specs
from maskrt.runtime.engines.axes import Inputs
from maskrt.runtime.evaluation.answers import refiner_answers, soss_answers, two_stage_answers
from maskrt.runtime.evaluation.scoring import SOSS_EVALUATION, TWO_STAGE_EVALUATION
from maskrt.runtime.evaluation.verify import certify_soss
from maskrt.runtime.evaluation.verify_files import load_networks
from maskrt.runtime.evaluation.verify_stages import certify_stages
from maskrt.runtime.interactive.sizes import click_decoder_inputs, step_inputs
from maskrt.runtime.kinds.table import PipelineKind
from maskrt.runtime.pipelines.refine.pipeline import refiner_of
from maskrt.runtime.pipelines.refine.sizes import backbone_inputs, coarse_inputs, fusion_inputs
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.pipelines.soss.sizes import segmenter_inputs
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline
from maskrt.runtime.pipelines.two_stage.sizes import stage_1_inputs, stage_2_inputs
from maskrt.runtime.sam.sizes import decoder_inputs, encoder_inputs, token_side_inputs, upscale_inputs


def _soss(bundle: Bundle) -> SossManifest:
    return bundle.expect(SossManifest)


def _stage_1(bundle: Bundle) -> Inputs:
    found = bundle.manifest.two_stage_specs
    return {} if found is None else stage_1_inputs(found[0])


def _stage_2(bundle: Bundle) -> Inputs:
    found = bundle.manifest.two_stage_specs
    return {} if found is None else stage_2_inputs(*found)


def _baseline(bundle: Bundle) -> Inputs:
    found = bundle.manifest.two_stage_specs
    return {} if found is None else stage_1_inputs(baseline_specs(*found)[0])


REFINER_SIZES: dict[str, Callable[[Bundle], Inputs]] = {
    "refiner_backbone": lambda bundle: backbone_inputs(refiner_of(bundle)[1], refiner_of(bundle)[0].halo),
    "refiner_coarse": lambda bundle: coarse_inputs(refiner_of(bundle)[1]),
    "refiner_fusion": lambda bundle: fusion_inputs(refiner_of(bundle)[1]),
}

BUILTIN = (
    PipelineKind(
        SossManifest,
        open=SossPipeline,
        sizes={
            "segmenter": lambda bundle: segmenter_inputs(_soss(bundle).segmenter),
            "segmenter_low": _stage_1,
            "segmenter_high": _stage_2,
            "encoder": lambda bundle: encoder_inputs(_soss(bundle).sam),
            "decoder": lambda bundle: decoder_inputs(_soss(bundle).masks),
            "token_side": lambda bundle: token_side_inputs(_soss(bundle).masks),
            "upscale": lambda bundle: upscale_inputs(_soss(bundle).masks),
            **REFINER_SIZES,
        },
        verify=certify_soss,
        evaluate=SOSS_EVALUATION,
        answers=soss_answers,
    ),
    PipelineKind(RefineManifest, sizes=REFINER_SIZES, answers=refiner_answers),
    PipelineKind(
        TwoStageManifest,
        open=TwoStagePipeline,
        sizes={"low": _stage_1, "high": _stage_2, BASELINE: _baseline},
        verify=certify_stages,
        evaluate=TWO_STAGE_EVALUATION,
        answers=two_stage_answers,
    ),
    PipelineKind(
        InteractiveManifest,
        load=load_networks,
        sizes={
            "encoder": lambda bundle: encoder_inputs(bundle.expect(InteractiveManifest).sam),
            "click_decoder": lambda bundle: click_decoder_inputs(),
            "step": lambda bundle: step_inputs(bundle.expect(InteractiveManifest).sam),
        },
        clicks=True,
        no_engine=frozenset({"step"}),
    ),
)
