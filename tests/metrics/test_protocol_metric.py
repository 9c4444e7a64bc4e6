"""The MONAI metric gives the function's result, averaged over slices."""

import subprocess
import sys

import pytest
import torch

from ctrestore.metrics import scores
from ctrestore.metrics.protocol_metric import ProtocolMetric


@pytest.fixture
def batch():
    noise = torch.Generator().manual_seed(0)
    label = torch.randn(3, 1, 24, 24, generator=noise) * 100
    return label + torch.randn(3, 1, 24, 24, generator=noise) * 10, label


@pytest.mark.parametrize("score", ["psnr_db", "ssim", "rmse"])
def test_batches_of_slices_give_the_mean_of_their_scores(batch, score):
    pred, label = batch
    metric = ProtocolMetric("hu400_soft_tissue", score)
    metric(y_pred=pred[:2], y=label[:2])
    metric(y_pred=pred[2:], y=label[2:])
    slices = zip(pred.numpy()[:, 0], label.numpy()[:, 0])
    each = [getattr(scores(p, r, protocol="hu400_soft_tissue"), score) for p, r in slices]
    assert float(metric.aggregate()) == pytest.approx(sum(each) / 3, rel=1e-5)


def test_monai_is_imported_only_on_request():
    code = "import sys, ctrestore.metrics; sys.exit('monai' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_needs_a_protocol_and_a_known_score():
    with pytest.raises(ValueError, match="need a protocol"):
        ProtocolMetric("psnr")
    with pytest.raises(ValueError, match="'psnr_db', 'ssim' or 'rmse'; got 'mae'"):
        ProtocolMetric("hu400_soft_tissue", "mae")


def test_integers_and_volumes_are_refused(batch):
    with pytest.raises(ValueError, match="must be floating point; got int16"):
        ProtocolMetric("hu400_soft_tissue")(y_pred=batch[0].short(), y=batch[1].short())
    with pytest.raises(ValueError, match=r"expected slices \(batch, 1, y, x\); got \(1, 1, 24, 24, 24\)"):
        ProtocolMetric("hu400_soft_tissue")(y_pred=torch.zeros(1, 1, 24, 24, 24), y=torch.zeros(1, 1, 24, 24, 24))


def test_half_precision_of_a_network_is_accepted(batch):
    metric = ProtocolMetric("hu400_soft_tissue")
    metric(y_pred=batch[0].bfloat16(), y=batch[1])
    assert torch.isfinite(metric.aggregate())
