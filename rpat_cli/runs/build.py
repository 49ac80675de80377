"""The composition root: from a recipe to the objects that a run is made of. Only here do all
registries meet."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rpat_cli.attacks import ATTACKS, TRAINING_ATTACKS
from rpat_cli.attacks.base import Attack
from rpat_cli.attacks.brought import BroughtAttack
from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.data import MIXINGS
from rpat_cli.data.augment import Augment, build_augment
from rpat_cli.data.base import Batches, Dataset
from rpat_cli.data.extra import load_extra
from rpat_cli.data.images import RandomCrop
from rpat_cli.data.joined import Joined
from rpat_cli.data.load import load_dataset
from rpat_cli.data.mixing import SoftLabels
from rpat_cli.data.normalization import normalization
from rpat_cli.data.order import SharedOrder
from rpat_cli.data.parts import PartsSplit
from rpat_cli.engine import OPTIMIZERS
from rpat_cli.engine.averaging import AveragedModel
from rpat_cli.engine.callback import Callback
from rpat_cli.engine.compute import Compute, resolve_compute
from rpat_cli.engine.distributed import ALONE, Ranks
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.engine.memory import Memory
from rpat_cli.engine.networks import Networks
from rpat_cli.engine.optimizers import parameter_groups
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.engine.stages import EpsWarmup, FromEpoch
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.load import load_model
from rpat_cli.loading.origins import origin
from rpat_cli.methods import METHODS
from rpat_cli.methods.compose import Composite, compose
from rpat_cli.methods.declare import Averaged, TrainedAlong
from rpat_cli.recipe.data_section import DataSection
from rpat_cli.recipe.defaults import STEPS
from rpat_cli.recipe.layers import Layer
from rpat_cli.recipe.optimizer_section import OptimizerSection
from rpat_cli.recipe.schema import AttackSection, Recipe
from rpat_cli.records.files import user_path


def compute_for(recipe: Recipe, architecture: Architecture) -> Compute:
    """Where and how to train a network. Raises `ConfigError` for what this machine lacks."""
    return resolve_compute(
        recipe.device,
        recipe.precision,
        parameters=architecture.parameters,
        fast=recipe.fast,
        compiled=recipe.compile,
    )


def build_data(section: DataSection, seed: int, *, test_only: bool = False) -> Dataset:
    """Training, validation and test images, or the test images alone. Raises `DataError` for what
    is missing or damaged."""
    crop = section.train_crop
    return load_dataset(
        section.name,
        root=Path(section.root),
        val_size=None if test_only else section.val_size,
        seed=seed,
        download=section.download,
        image_size=section.image_size,
        memory_budget=section.memory_budget,
        workers=section.workers,
        test_data=section.test_data,
        channels=section.channels,
        center_crop=section.center_crop,
        interpolation=section.interpolation,
        test_size=section.test_size,
        val_folder=section.val_folder,
        train_crop=None if crop.scale is None else RandomCrop(crop.scale, crop.ratio),
    )


def architecture_for(recipe: Recipe, data: Dataset) -> Architecture:
    """What the recipe builds for this data; normalization is part of the model, so every attack
    sees [0, 1]."""
    asked = recipe.data.normalize_as
    mean, std = data.mean, data.std
    if asked is not None:
        mean, std = normalization(asked, data.shape[0])
    return Architecture(recipe.model, data.shape, len(data.class_names), mean, std)


def build_threat(recipe: Recipe) -> Threat:
    return Threat(recipe.threat.norm, recipe.threat.eps)


def build_attack(section: AttackSection, threat: Threat) -> Attack:
    """The attack that makes training examples."""
    attack: Attack = TRAINING_ATTACKS[section.name].for_training(threat, section.settings())
    return BroughtAttack(attack) if ATTACKS.is_added(section.name) else attack


def build_method(recipe: Recipe) -> Composite:
    """The method with the regularizers that the recipe turns on."""
    return compose(recipe.method.build(METHODS), *recipe.regularizers().values())


def build_strong_attack(recipe: Recipe) -> FromEpoch[Attack] | None:
    """The attack that takes over in the middle of the training, if the recipe asks for one."""
    strong = recipe.attack.strong
    if strong.from_epoch is None or strong.eps is None:
        return None
    section = recipe.attack.model_copy(update={"steps": strong.steps})
    return FromEpoch(
        strong.from_epoch, build_attack(section, Threat(recipe.threat.norm, strong.eps))
    )


def build_stronger_attack(recipe: Recipe) -> PGD:
    """PGD of at least the usual steps from a uniform start: what a training goes on with that has
    collapsed under a weaker attack."""
    threat, section = build_threat(recipe), recipe.attack
    steps = max(STEPS, section.steps or 0)
    mode = section.bn_mode or "eval"
    return PGD(threat, threat.default_step_size(), steps, start="uniform", bn_mode=mode)


def build_eps_warmup(section: AttackSection) -> EpsWarmup | None:
    if not section.eps_warmup_epochs:
        return None
    return EpsWarmup(section.eps_warmup_epochs, section.eps_warmup_per)


def build_late_augment(section: DataSection, image_size: int) -> FromEpoch[Augment] | None:
    later = section.augment_from
    return (
        None
        if later.epoch is None
        else FromEpoch(later.epoch, build_augment(later.augment, image_size))
    )


def build_relabel(recipe: Recipe, classes: int) -> SoftLabels | None:
    """What turns classes into probabilities; None where they stay classes."""
    if recipe.mix is None and recipe.label_smoothing == 0:
        return None
    mixing = None if recipe.mix is None else recipe.mix.build(MIXINGS)
    return SoftLabels(classes, recipe.label_smoothing, mixing)


def build_extra(section: DataSection, data: Dataset) -> PartsSplit | None:
    """The further training images of the recipe. Raises `DataError` for a file that does not fit
    the data set."""
    paths = [user_path(path) for path in section.extra.paths]
    if not paths:
        return None
    return load_extra(paths, data.shape, data.classes, section.memory_budget)


def build_order(recipe: Recipe, count: int, extra: PartsSplit | None) -> SharedOrder | None:
    """Of `count` images and the extra ones; None where there are no others."""
    if extra is None:
        return None
    return SharedOrder(count, len(extra), recipe.batch_size, recipe.data.extra.share)


def build_networks(
    recipe: Recipe, data: Dataset, model: nn.Module, device: torch.device
) -> Networks:
    """The further networks that the method asks for.

    Raises `ConfigError` for one of another number of classes, and what `load_model` raises.
    """
    frozen: dict[str, nn.Module] = {}
    averaged: dict[str, AveragedModel] = {}
    trained: dict[str, nn.Module] = {}
    origins: dict[str, Callable[[], dict[str, Any]]] = {}
    for name, network in recipe.method.build(METHODS).networks.items():
        if isinstance(network, Averaged):
            averaged[name] = AveragedModel(model, network.decay, network.start_epoch)
        elif isinstance(network, TrainedAlong):
            described = replace(architecture_for(recipe, data), name=network.model)
            trained[name] = described.build().to(device)
        else:
            # Files of other code do not say on which data they were trained, nor how normalized.
            values = recipe.data.model_dump(mode="json", exclude={"normalize_as"})
            given = [Layer(f"method.{name}", {"data": values})]
            saved = load_model(user_path(network.source), changes=given)
            classes = saved.architecture.classes
            if classes != data.classes:
                message = f"{network.source} tells {classes} classes apart, the data {data.classes}"
                raise ConfigError(Problem(f"method.{name}", message))
            frozen[name] = saved.model.to(device).eval().requires_grad_(False)
            files, weights = (saved.file, *saved.further_files), frozen[name].state_dict()
            origins[name] = partial(origin, network.source, files, weights)
    return Networks(frozen, averaged, trained, origins)


def build_memory(method: Composite, data: Dataset, count: int, device: torch.device) -> Memory:
    """What the method remembers, of `count` training images, as it begins."""
    state, names = method.initial_state(data.classes), method.remembers
    return Memory(state, names, count if names else 0, data.shape, device)


def build_optimizer(
    section: OptimizerSection, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]]
) -> torch.optim.Optimizer:
    """The optimizer with the section's settings, for parameters or groups of them."""
    row = OPTIMIZERS[section.name]
    settings = {key: getattr(section, key) for key in row.takes}
    made: torch.optim.Optimizer = row.build(
        list(parameters), lr=section.lr, weight_decay=section.weight_decay, **settings
    )
    return made


def optimizer_for(
    section: OptimizerSection, networks: Iterable[nn.Module]
) -> torch.optim.Optimizer:
    """The optimizer of all the networks, each parameter with its share of rate and decay."""
    groups = parameter_groups(networks, section.weight_decay, section.decayed, section.layer_decay)
    return build_optimizer(section, groups)


def build_loop(
    recipe: Recipe,
    data: Dataset,
    model: nn.Module,
    compute: Compute,
    callbacks: Sequence[Callback],
    should_stop: Callable[[TrainLoop], bool],
    extra: PartsSplit | None = None,
    ranks: Ranks = ALONE,
) -> TrainLoop:
    """The loop that trains `model`, together with the other `ranks`; `extra` are the images of
    `build_extra`."""
    method = build_method(recipe)
    settings = recipe.optimizer
    networks = build_networks(recipe, data, model, compute.device)
    train: Batches = data.train.to(compute.device)
    order = build_order(recipe, len(train), extra)
    train = train if extra is None else Joined(train, extra)
    return TrainLoop(
        model=model,
        method=method,
        attack=build_attack(recipe.attack, build_threat(recipe)),
        optimizer=optimizer_for(settings, [model, *networks.trained.values()]),
        schedule=recipe.schedule.build(SCHEDULES),
        late_attack=build_strong_attack(recipe),
        train=train,
        order=order,
        networks=networks,
        memory=build_memory(method, data, len(train), compute.device),
        eps_warmup=build_eps_warmup(recipe.attack),
        late_augment=build_late_augment(recipe.data, data.shape[-1]),
        relabel=build_relabel(recipe, data.classes),
        averaging=recipe.wa.of(model, recipe.epochs) if recipe.wa else None,
        awp=recipe.awp or recipe.sam,
        momentum=settings.cycle_momentum,
        accumulate=recipe.accumulate,
        clip_norm=settings.clip_norm,
        augment=build_augment(recipe.data.augment, data.shape[-1]),
        compute=compute,
        lr=settings.lr,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        views=method.views,
        warmup_epochs=settings.warmup_epochs,
        seed=recipe.seed,
        ranks=ranks,
        callbacks=callbacks,
        should_stop=should_stop,
    )
